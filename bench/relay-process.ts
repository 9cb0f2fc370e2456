/** The relay in a process of its own, as the bench measures it: relay-process.js MTU PORT…; prints its URL. */

const { createRelay } = (await import(
	new URL("../../dist/relay/relay.js", import.meta.url).href
)) as typeof import("../src/relay/relay.js");
const { createLog } = (await import(
	new URL("../../dist/log.js", import.meta.url).href
)) as typeof import("../src/log.js");

const [mtu, ...hostPorts] = process.argv.slice(2).map(Number);
const relay = await createRelay({ log: createLog("warn"), mtu: mtu ?? 1500, hostPorts });
process.stdout.write(`${relay.url}\n`);
process.once("SIGTERM", () => void relay.close().then(() => process.exit()));
