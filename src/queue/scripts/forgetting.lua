-- Shared by the scripts that remove jobs which did not finish.

-- Makes a feed forget an item, so that its next fetch brings it again: `record` is appended to the seen map, and the
-- validators go, or a 304 would hide the item. An empty record: the job is no item of a feed.
local function forget(seen, feed, record)
  if record ~= '' then
    if redis.call('EXISTS', seen) == 1 then
      redis.call('APPEND', seen, record)
    end
    redis.call('HDEL', feed, 'etag', 'last_modified')
  end
end
