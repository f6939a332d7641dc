// BullMQ, measured as `feedmill bench` measures feedmill: the same phases, the same JSON lines.
//
//   node bench/bullmq.mjs --redis-url redis://127.0.0.1:6379 [--jobs N] [--payload-bytes B] [--concurrency N]
//                         [--samples N]
//
// Jobs have ids of 12 bytes and are removed when they are done, as feedmill does; all else is BullMQ's default. It uses
// the BullMQ of tests/bullmq (npm ci). Its keys begin with bench-<random>, and are deleted at the end, also after an
// error or Ctrl-C.

import { randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';

const require = createRequire(new URL('../tests/bullmq/package.json', import.meta.url));
const { Queue, Worker } = require('bullmq');
const { Redis } = require('ioredis');

const BULK_JOBS = 1000;
const BULKS_IN_FLIGHT = 4;
const WARM_UP_SAMPLES = 50;
// A worker settles and blocks again meanwhile.
const IDLE_PAUSE_MS = 2;
const KEYS_PER_STEP = 500;

const { values } = parseArgs({
  options: {
    'redis-url': { type: 'string' },
    jobs: { type: 'string', default: '100000' },
    'payload-bytes': { type: 'string', default: '600' },
    concurrency: { type: 'string', default: '100' },
    samples: { type: 'string', default: '2000' },
  },
});
const url = values['redis-url'];
if (!url) {
  console.error('error: --redis-url is missing; say which Redis to measure on');
  process.exit(2);
}
const whole = (name) => {
  const number = Number(values[name]);
  if (!Number.isInteger(number) || number < 0) {
    console.error(`error: --${name} ${values[name]} is not a whole number of 0 or more`);
    process.exit(2);
  }
  return number;
};
const [jobs, payloadBytes, concurrency, samples] = ['jobs', 'payload-bytes', 'concurrency', 'samples'].map(whole);

const prefix = `bench-${randomBytes(4).toString('hex')}`;
const redis = new Redis(url, { maxRetriesPerRequest: null });
const connect = () => new Redis(url, { maxRetriesPerRequest: null });
const queue = new Queue('bullmq', { connection: connect(), prefix });
const options = { removeOnComplete: true };
// As JSON, which is what BullMQ stores, it has the size that is asked for.
const data = { p: 'x'.repeat(Math.max(0, payloadBytes - '{"p":""}'.length)) };
let numbers = 0;
const nextId = () => `bench-${String(numbers++).padStart(6, '0')}`;

const line = (phase, found) => console.log(JSON.stringify({ system: 'bullmq', phase, ...found }));
const rounded = (value) => Math.round(value * 1000) / 1000;

// What the server and this process have taken so far.
async function taken() {
  const info = Object.fromEntries((await redis.info('everything')).split('\r\n').map((entry) => entry.split(':')));
  const seconds = (kind) => Number(info[`used_cpu_${kind}_main_thread`] ?? info[`used_cpu_${kind}`]);
  const { user, system } = process.cpuUsage();
  return {
    redisUs: (seconds('user') + seconds('sys')) * 1e6,
    clientUs: user + system,
    bytes: info.used_memory - (info.mem_clients_normal ?? 0) - (info.mem_aof_buffer ?? 0),
  };
}

const costs = (before, after, count) => ({
  redis_cpu_us_per_job: rounded((after.redisUs - before.redisUs) / count),
  client_cpu_us_per_job: rounded((after.clientUs - before.clientUs) / count),
});

async function fill() {
  const ids = Array.from({ length: jobs }, nextId);
  const producer = async () => {
    while (ids.length > 0) {
      const bulk = ids.splice(0, BULK_JOBS);
      await queue.addBulk(bulk.map((jobId) => ({ name: 'job', data, opts: { ...options, jobId } })));
    }
  };
  await Promise.all(Array.from({ length: BULKS_IN_FLIGHT }, producer));
}

// A worker with this handler, on connections of its own.
const work = (handler, atOnce) =>
  new Worker('bullmq', handler, { connection: connect(), prefix, concurrency: atOnce, autorun: true });

async function latency() {
  let started;
  const worker = work(async () => started(performance.now()), 1);
  await worker.waitUntilReady();
  const took = [];
  for (let sample = 0; sample < WARM_UP_SAMPLES + samples; sample++) {
    await pause(IDLE_PAUSE_MS);
    const start = new Promise((resolve) => (started = resolve));
    const began = performance.now();
    await queue.add('job', data, { ...options, jobId: nextId() });
    const ms = (await start) - began;
    if (sample >= WARM_UP_SAMPLES) took.push(ms);
  }
  await worker.close();
  took.sort((a, b) => a - b);
  const percentile = (percent) => rounded(took[Math.min(took.length - 1, Math.floor((took.length * percent) / 100))]);
  line('latency', { concurrency: 1, jobs: samples, p50_ms: percentile(50), p99_ms: percentile(99) });
}

async function add() {
  const [before, began] = [await taken(), performance.now()];
  await fill();
  const [seconds, after] = [(performance.now() - began) / 1000, await taken()];
  line('add', { jobs, per_s: Math.round(jobs / seconds), ...costs(before, after, jobs) });
  line('memory', { jobs, bytes_per_job: Math.round((after.bytes - before.bytes) / jobs) });
}

async function processAll() {
  const [before, began] = [await taken(), performance.now()];
  let left = jobs;
  const worker = work(async () => {}, concurrency);
  await new Promise((resolve, reject) => {
    worker.on('completed', () => --left === 0 && resolve());
    worker.on('failed', (job, error) => reject(error));
    worker.on('error', reject);
  });
  const [seconds, after] = [(performance.now() - began) / 1000, await taken()];
  await worker.close();
  line('process', { concurrency, jobs, per_s: Math.round(jobs / seconds), ...costs(before, after, jobs) });
}

async function deleteOwnKeys() {
  let cursor = '0';
  do {
    const [next, keys] = await redis.scan(cursor, 'MATCH', `${prefix}:*`, 'COUNT', KEYS_PER_STEP);
    if (keys.length > 0) await redis.unlink(...keys);
    cursor = next;
  } while (cursor !== '0');
}

const interrupted = new Promise((_, reject) => {
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => reject(new Error('interrupted')));
});

async function measure() {
  await queue.waitUntilReady();
  if (samples > 0) await latency();
  await add();
  await processAll();
}

let status = 0;
try {
  await Promise.race([measure(), interrupted]);
} catch (error) {
  console.error(`error: ${error.message}`);
  status = 1;
}
await queue.close().catch(() => {});
await deleteOwnKeys();
process.exit(status);
