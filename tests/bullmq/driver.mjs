// Lets the Rust tests use the real BullMQ: reads one command a line as JSON from stdin, answers each with one line of
// JSON on stdout, in order.
//
//   node driver.mjs bullmq  redis://127.0.0.1:6379 bull      BullMQ 6
//   node driver.mjs bullmq5 redis://127.0.0.1:6379 bull      BullMQ 5
//
// A command is {"do": …, "queue": …, …}; its answer {"ok": …} or {"error": "message"}.
//
//   queue    method, args                 calls a method of Queue, with args
//   job      id, method, args             calls a method of a Job
//   look     ids                          fields and state of each job; null for one that is not there
//   flow     tree                         FlowProducer.add
//   worker   options                      the worker of the queue from now on, in the place of an earlier one
//   take                                  the worker takes the next job and begins to process it; null if there is none
//   settle   id, outcome                  the processor of a job that was taken ends with this outcome
//   abandon  id                           the worker with this job has died: its lock is gone, nothing is settled
//   stalled_check                         the worker looks for stalled jobs, as if its interval were over
//   work     outcomes, otherwise          takes and settles until nothing waits; outcomes: id → outcome of each attempt
//   close_worker                          ends the worker and its connections
//   delays   cases                        [failed attempt n, delay, type] → ms until the next attempt
//   events   after                        entries of the stream of events after this id
//
// An outcome is {"do": "done", "result": …}, {"do": "throw", "reason": …}, {"do": "unrecoverable", "reason": …},
// {"do": "delay", "ms": …} (moveToDelayed and DelayedError), or in `work` also {"do": "hang"}: the job stays active.
//
// A worker here runs its own processJob on one job at a time, when it is told to: what is asked between two steps has
// one answer. It renews no locks.
import { createInterface } from "node:readline";

import Redis from "ioredis";

const [version, url, prefix] = process.argv.slice(2);
const bullmq = await import(version);
const { Queue, Worker, Job, FlowProducer, UnrecoverableError, DelayedError } = bullmq;

const redis = new Redis(url);
const { hostname, port } = new URL(url);
const options = { connection: { host: hostname, port: Number(port), maxRetriesPerRequest: null }, prefix };

const queues = new Map();
const workers = new Map();
// Decisions that processors wait for, by queue and job id.
const undecided = new Map();

function queueOf({ queue, options: given }) {
  if (!queues.has(queue)) queues.set(queue, new Queue(queue, { ...options, ...given }));
  return queues.get(queue);
}

function workerOf({ queue }) {
  if (!workers.has(queue)) throw new Error(`there is no worker of ${queue}`);
  return workers.get(queue);
}

const nameOf = (queue, id) => `${queue} ${id}`;

async function closeWorker(queue) {
  const worker = workers.get(queue);
  workers.delete(queue);
  await worker?.close(true);
}

async function startWorker({ queue, options: given }) {
  await closeWorker(queue);
  const process = async (job, token) => {
    const outcome = await new Promise((decide) => (undecided.get(nameOf(queue, job.id)).decide = decide));
    switch (outcome.do) {
      case "done":
        return outcome.result;
      case "throw":
        throw new Error(outcome.reason);
      case "unrecoverable":
        throw new UnrecoverableError(outcome.reason);
      case "delay":
        await job.moveToDelayed(Date.now() + outcome.ms, token);
        throw new DelayedError();
      default:
        throw new Error(`there is no outcome ${outcome.do}`);
    }
  };
  const worker = new Worker(queue, process, { ...options, ...given, autorun: false });
  // Locks that a test takes away are missed, which is the point of it.
  worker.on("error", () => {});
  workers.set(queue, worker);
  await worker.waitUntilReady();
}

async function take({ queue }) {
  const worker = workerOf({ queue });
  // What the worker's own loop calls; getNextJob of BullMQ 5 fails stalled jobs itself.
  const job = await (worker.getTracedNextJob ?? worker.getNextJob).call(worker, "token", { block: false });
  if (!job) return null;
  const state = {};
  undecided.set(nameOf(queue, job.id), state);
  state.settled = worker.processJob(job, "token", () => false);
  // A job that stalled too often is failed without being processed: its call ends by itself.
  const settles = await Promise.race([
    state.settled.then(() => true),
    (async () => {
      while (!state.decide) await new Promise((later) => setImmediate(later));
      return false;
    })(),
  ]);
  if (settles) undecided.delete(nameOf(queue, job.id));
  return { ...fieldsOf(job), settled: settles };
}

async function settle({ queue, id, outcome }) {
  const state = undecided.get(nameOf(queue, id));
  if (!state) throw new Error(`job ${id} of ${queue} was not taken`);
  undecided.delete(nameOf(queue, id));
  state.decide(outcome);
  await state.settled;
}

async function abandon({ queue, id }) {
  undecided.delete(nameOf(queue, id));
  await redis.del(`${prefix}:${queue}:${id}:lock`);
}

// What was active at one check and has no lock at the next has stalled; so there are two.
async function stalledCheck({ queue }) {
  const worker = workerOf({ queue });
  const stalled = [];
  const listen = (id) => stalled.push(id);
  worker.on("stalled", listen);
  for (let check = 0; check < 2; check++) {
    await redis.del(`${prefix}:${queue}:stalled-check`);
    await worker.moveStalledJobsToWait();
  }
  worker.off("stalled", listen);
  return stalled;
}

async function work({ queue, outcomes = {}, otherwise = { do: "done" } }) {
  let settled = 0;
  for (;;) {
    const job = await take({ queue });
    if (!job) return settled;
    if (job.settled) continue;
    const outcome = outcomes[job.id]?.[job.attemptsMade] ?? otherwise;
    if (outcome.do === "hang") continue;
    await settle({ queue, id: job.id, outcome });
    settled++;
  }
}

// The delay that a job with these options gets when this attempt of it has failed.
async function delays({ cases }) {
  const queue = queueOf({ queue: "delays" });
  const answers = [];
  for (const [n, delay, type] of cases) {
    const job = new Job(queue, "job", {}, { attempts: n + 1, backoff: { type, delay } });
    job.attemptsMade = n - 1;
    const [, wait] = await job.shouldRetryJob(new Error("failed"));
    answers.push(wait);
  }
  return answers;
}

async function events({ queue, after = "-" }) {
  const entries = await redis.xrange(`${prefix}:${queue}:events`, after === "-" ? "-" : `(${after}`, "+");
  return entries.map(([entry, fields]) => {
    const event = { entry };
    for (let at = 0; at < fields.length; at += 2) event[fields[at]] = fields[at + 1];
    return event;
  });
}

function fieldsOf(job) {
  const { id, name, data, opts, delay, priority, timestamp, attemptsMade } = job;
  const { failedReason, deferredFailure, stalledCounter, returnvalue } = job;
  const ends = { failedReason, deferredFailure, stalledCounter, returnvalue };
  return { id, name, data, opts, delay, priority, timestamp, attemptsMade, ...ends };
}

async function look({ queue, ids }) {
  const found = [];
  for (const id of ids) {
    const job = await queueOf({ queue }).getJob(id);
    found.push(job ? { ...fieldsOf(job), state: await job.getState() } : null);
  }
  return found;
}

async function callJob(command) {
  const job = await queueOf(command).getJob(command.id);
  if (!job) throw new Error(`there is no job ${command.id} in ${command.queue}`);
  return call(job, command);
}

function call(object, { method, args = [] }) {
  if (typeof object[method] !== "function") throw new Error(`there is no method ${method}`);
  return object[method](...args);
}

const commands = {
  queue: (command) => call(queueOf(command), command),
  job: callJob,
  look,
  flow: async ({ tree }) => {
    const producer = new FlowProducer(options);
    await producer.add(tree);
    await producer.close();
  },
  worker: startWorker,
  take,
  settle,
  abandon,
  stalled_check: stalledCheck,
  work,
  close_worker: ({ queue }) => closeWorker(queue),
  delays,
  events,
};

// Jobs hold their queue and its connection; only what they are is answered.
function plain(key, value) {
  return this[key] instanceof Job ? fieldsOf(this[key]) : value;
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const command = JSON.parse(line);
    if (!commands[command.do]) throw new Error(`there is no command ${command.do}`);
    answer = { ok: (await commands[command.do](command)) ?? null };
  } catch (error) {
    answer = { error: error.message };
  }
  process.stdout.write(`${JSON.stringify(answer, plain)}\n`);
}
process.exit(0);
