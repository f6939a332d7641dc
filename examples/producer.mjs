// Adds jobs from Node: npm install ioredis && node examples/producer.mjs
//
// The import queue takes items; their fields are those of `feedmill parse`. Any other queue takes {"id": …, "data": …}.
import Redis from "ioredis";

const redis = new Redis(process.env.REDIS_URL ?? "redis://127.0.0.1:6379");
const add = (queue, job) => redis.xadd(`feedmill:{${queue}}:stream`, "*", "json", JSON.stringify(job));

await add("job_import_queue", {
  source: "https://jobs.example.com/rss.xml",
  guid: "12345",
  title: "Lighthouse keeper",
  link: "https://jobs.example.com/12345",
});
await add("emails", { id: "welcome:eve", data: { to: "eve@example.com" } });
console.log("2 jobs added");
redis.disconnect();
