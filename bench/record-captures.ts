/**
 * Records the captures that the relay is fuzzed from, test/captures/*.pcap: what image tiny's programs really send, to servers
 * on the host's loopback and by names that only these tests know. Anew with
 *   npm run build:tools && node build/bench/record-captures.js
 */

import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";
import {
	GATEWAY,
	listen,
	NAME_SERVER,
	startNameServer,
	startTftpServer,
	startWebServer,
} from "../test/guest/network-support.js";
import { type ServerClient, startServer } from "./server-client.js";

const FOLDER = fileURLToPath(new URL("../../test/captures/", import.meta.url));
const NAMES = { "public.test": [0x5db8d822], "private.test": [0x0a010203] };
const GUEST_PORT = 8080;

interface Scenario {
	readonly name: string;
	readonly args?: readonly string[];
	/** What the guest does. */
	readonly command: string;
	/** What is done from the host meanwhile, once the command is done. */
	readonly afterwards?: (machine: ServerClient) => Promise<void>;
}

const [web, tftp, names, webSocket, speaker] = await Promise.all([
	startWebServer(),
	startTftpServer(2),
	startNameServer(NAMES),
	startWebSocketEcho(),
	listen(createServer((socket: Socket) => socket.on("error", () => {}).on("data", (bytes) => socket.write(bytes)))),
]);
const forwarded = await listen(createServer());
forwarded.close();
const opened = [web, tftp, names, webSocket, speaker].flatMap(({ port }) => ["--host-port", String(port)]);

const scenarios: readonly Scenario[] = [
	{
		name: "address",
		command: `udhcpc -n -q -f -i eth0 -s /bin/true; ip neigh flush dev eth0; ping -c 3 -i 0.1 ${GATEWAY}; ping -c 1 -s 4000 ${GATEWAY}; ping -c 1 -W 1 10.1.2.3`,
	},
	{
		name: "names",
		command: `for name in public.test private.test nowhere.test; do nslookup -type=a $name; nslookup -type=txt $name; done
			nslookup -type=aaaa public.test ${GATEWAY}
			echo ${dnsOverTcp()} | base64 -d | nc ${NAME_SERVER} 53 >/dev/null`,
	},
	{
		name: "tcp",
		command: `wget -q -O - http://${GATEWAY}:${web.port}/hello; wget -q -O /dev/null http://${GATEWAY}:${web.port}/40000
			head -c 30000 /dev/zero | tr '\\0' a >/tmp/up; wget -q -O - --post-file /tmp/up http://${GATEWAY}:${web.port}/
			wget -q -O - http://${GATEWAY}:1/; wget -q -O - http://169.254.169.254/`,
	},
	{ name: "udp", command: `tftp -g -r datagram -l - ${GATEWAY} ${tftp.port}; tftp -g -r x -l - ${GATEWAY} 9` },
	{
		name: "websocket",
		command: `(printf 'GET / HTTP/1.1\\r\\nHost: public.test\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: ${createHash("md5").update("k").digest("base64")}\\r\\n\\r\\n'; sleep 0.3; printf '\\202\\205\\0\\0\\0\\0hello'; sleep 0.3; printf '\\210\\200\\0\\0\\0\\0'; sleep 0.2) | nc ${GATEWAY} ${webSocket.port} >/dev/null`,
	},
	{
		name: "tls",
		command: `(echo ${(await clientHello("public.test")).toString("base64")} | base64 -d; sleep 0.3) | nc ${GATEWAY} ${speaker.port} >/dev/null`,
	},
	{
		name: "inbound",
		args: ["--forward", `${forwarded.port}:${GUEST_PORT}`],
		command: `mkdir -p /www; echo from the guest >/www/index.html; httpd -p ${GUEST_PORT} -h /www`,
		afterwards: async () => {
			await (await fetch(`http://127.0.0.1:${forwarded.port}/`, { headers: { connection: "close" } })).text();
		},
	},
];

const home = mkdtempSync(join(tmpdir(), "sandbox86-captures-"));

try {
	for (const scenario of scenarios) await record(scenario);
} finally {
	rmSync(home, { recursive: true, force: true });
	for (const service of [web, tftp, names, webSocket, speaker]) service.close();
}

async function record({ name, args = [], command, afterwards }: Scenario): Promise<void> {
	const path = join(FOLDER, `${name}.pcap`);
	const machine = await startServer(
		["--image", "tiny", "--home", home, "--pcap", path, ...args, ...opened].concat("--dns", `127.0.0.1:${names.port}`),
		{},
	);
	try {
		await machine.call("bash", { command });
		await afterwards?.(machine);
	} finally {
		await machine.close();
	}
	process.stdout.write(`${path} ${statSync(path).size} bytes\n`);
}

async function startWebSocketEcho(): Promise<{ readonly port: number; close(): void }> {
	const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
	server.on("connection", (socket) => socket.on("message", (bytes, binary) => socket.send(bytes, { binary })));
	await once(server, "listening");
	const address = server.address();
	if (typeof address !== "object" || address === null) throw new Error("no address");
	return { port: address.port, close: () => server.close() };
}

/** "public.test TXT" as a program asks it over TCP, base64. */
function dnsOverTcp(): string {
	const query = Buffer.from("123401000001000000000000067075626c6963047465737400001000 01".replaceAll(" ", ""), "hex");
	return Buffer.concat([Buffer.from([0, query.length]), query]).toString("base64");
}

/** The first bytes of a real TLS client. */
async function clientHello(servername: string): Promise<Buffer> {
	const server = createServer();
	const { port, close } = await listen(server);
	const client = connectTls({ host: "127.0.0.1", port, servername });
	client.on("error", () => {});
	const [socket] = (await once(server, "connection")) as [Socket];
	const [bytes] = (await once(socket, "data")) as [Buffer];
	client.destroy();
	socket.destroy();
	close();
	return bytes;
}
