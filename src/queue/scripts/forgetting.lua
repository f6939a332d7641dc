-- Shared by the scripts that remove jobs which did not finish. Behind queue.lua.

-- Makes a feed forget an item, so that its next fetch brings it again: `record` is appended to the seen map, and the
-- validators go, or a 304 would hide the item. Without a feed there is nothing to forget.
local function forget(feed, record)
  if feed and record ~= '' then
    local seen = PREFIX .. 'seen:' .. feed
    if redis.call('EXISTS', seen) == 1 then
      redis.call('APPEND', seen, record)
    end
    redis.call('HDEL', PREFIX .. 'feed:' .. feed, 'etag', 'last_modified')
  end
end
