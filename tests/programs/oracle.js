// oracle MODE REPORT: MODE is `listen` or `exit`. Its clock is CLOCK_MONOTONIC, and says so.
const mainNs = process.hrtime.bigint();

const fs = require('fs');
const net = require('net');
const [mode, report] = process.argv.slice(2);

function ready() {
  const readyNs = process.hrtime.bigint();
  const stat = fs.readFileSync('/proc/self/stat', 'utf8');
  const ticks = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  fs.appendFileSync(
    report,
    `{"clock":"monotonic","main_ns":${mainNs},"ready_ns":${readyNs},"pid":${process.pid},"start_ticks":${ticks}}\n`,
  );
}

if (mode === 'listen') {
  const server = net.createServer();
  server.listen(0, '127.0.0.1', () => {
    ready();
    setTimeout(() => server.close(), 200);
  });
} else {
  ready();
}
