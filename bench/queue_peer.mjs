// queue_peer.mjs graphile|pgboss CONNECTION JOBS WORKERS: what registry_load has the registry do, by npm's
// queues on PostgreSQL: WORKERS at once take one job each and complete it, without work between. graphile-worker
// runs its own workers; of pg-boss fetch() and complete() are called, because its workers take at most two jobs a
// second. JOBS are queued, and the tables analysed, before the clock starts. Prints {"tasks","wall_seconds","cpu_seconds"}.
const [kind, connectionString, jobText, workerText] = process.argv.slice(2);
const jobs = Number(jobText);
const workers = Number(workerText);

async function timed(work) {
  const { default: pg } = await import("pg");
  const client = new pg.Client({ connectionString });
  await client.connect();
  await client.query("VACUUM ANALYZE");
  await client.end();
  const cpu = process.cpuUsage();
  const begin = performance.now();
  await work();
  const wall = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { tasks: jobs, wall_seconds: wall, cpu_seconds: (user + system) / 1e6 };
}

async function graphile() {
  const { default: worker } = await import("graphile-worker");
  const logger = new worker.Logger(() => () => {});
  const options = { connectionString, maxPoolSize: workers, logger };
  const utils = await worker.makeWorkerUtils(options);
  await utils.migrate();
  await utils.withPgClient((client) =>
    client.query("SELECT graphile_worker.add_job('noop') FROM generate_series(1, $1::int)", [jobs]));
  await utils.release();
  let done = 0;
  let allDone;
  const end = new Promise((resolve) => { allDone = resolve; });
  const noop = async () => { if (++done === jobs) allDone(); };
  return timed(async () => {
    const runner = await worker.run({ ...options, concurrency: workers, noHandleSignals: true, taskList: { noop } });
    await end;
    await runner.stop();  // returns when the last completions are stored
  });
}

async function pgboss() {
  const { default: PgBoss } = await import("pg-boss");
  const boss = new PgBoss({ connectionString, max: workers, supervise: false, schedule: false });
  await boss.start();
  await boss.createQueue("noop");
  for (let first = 0; first < jobs; first += 1000) {
    await boss.insert(Array.from({ length: Math.min(1000, jobs - first) }, () => ({ name: "noop" })));
  }
  let done = 0;
  const work = async () => {
    for (let [job] = await boss.fetch("noop"); job; [job] = await boss.fetch("noop")) {
      await boss.complete("noop", job.id);
      ++done;
    }
  };
  const result = await timed(() => Promise.all(Array.from({ length: workers }, work)));
  if (done !== jobs) throw new Error(`${done} of ${jobs} jobs`);
  await boss.stop({ graceful: false });
  return result;
}

console.log(JSON.stringify(await { graphile, pgboss }[kind]()));
process.exit(0);
