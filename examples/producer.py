# Adds jobs from Python: pip install redis && python3 examples/producer.py
#
# The import queue takes items; their fields are those of `feedmill parse`. Any other queue takes {"id": …, "data": …}.
import json
import os

import redis

client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))


def add(queue, job):
    client.xadd("feedmill:{%s}:stream" % queue, {"json": json.dumps(job)})


add("job_import_queue", {
    "source": "https://jobs.example.com/rss.xml",
    "guid": "67890",
    "title": "Harbour pilot",
    "link": "https://jobs.example.com/67890",
})
add("emails", {"id": "welcome:fay", "data": {"to": "fay@example.com"}})
print("2 jobs added")
