/** The guest's network as programs in it see it: a real machine, the relay, and real servers on the host. */

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, it, test } from "vitest";
import type { MachineSaved } from "../../src/vm/machine.js";
import {
	freePorts,
	GATEWAY,
	type HostService,
	LONG_TEXT_BYTES,
	lanAddress,
	listen,
	MIB,
	NAME_SERVER,
	type NameServer,
	noise,
	sha256,
	startCountingServer,
	startNameServer,
	startTftpServer,
	startWebServer,
} from "./network-support.js";
import { auditLogPath, type Guest, startGuest, succeeded } from "./support.js";

const GUEST_PORT = 8080;
const NAMES = {
	"public.test": [0x5db8d822],
	"private.test": [0x0a010203, 0xc0a80101],
	"mixed.test": [0xac100001, 0x5db8d822],
	"loopback.test": [0x7f000001],
	"metadata.test": [0xa9fea9fe],
	"machine.test": [0x0a000202],
};

let web: HostService;
let tftp: HostService;
let names: NameServer;
let lines: Server;
let linesPort: number;
let forwardedPort: number;
let guest: Guest;

beforeAll(async () => {
	[web, tftp, names] = await Promise.all([startWebServer(), startTftpServer(8), startNameServer(NAMES)]);
	lines = createServer();
	linesPort = (await listen(lines)).port;
	[forwardedPort = 0] = await freePorts(1);
	guest = await startGuest({
		network: {
			network: "relay",
			hostPort: [web.port, tftp.port, names.port, linesPort].map(String),
			forward: [`${forwardedPort}:${GUEST_PORT}`],
			dns: [`127.0.0.1:${names.port}`],
		},
	});
});
afterAll(async () => {
	await guest?.dispose();
	for (const service of [web, tftp, names, lines]) service?.close();
});

/** The text of http://HOST:PORT/PATH by the guest's wget. */
const get = (port: number, path: string, host = GATEWAY) => `wget -q -O - http://${host}:${port}/${path}`;

/** A DHCP exchange, which changes nothing. */
const LEASE = "udhcpc -n -q -f -i eth0 -s /bin/true 2>&1 | grep -o 'lease of .*'";
const LEASED = "lease of 10.0.2.15 obtained from 10.0.2.2, lease time 86400\n";

describe("the card", () => {
	it("has its address, a default route and a name server before the first command", async () => {
		const { stdout } = await guest.run("ip -4 addr show eth0; ip route; cat /etc/resolv.conf");
		expect(stdout).toMatch(/inet 10\.0\.2\.15\/24 brd 10\.0\.2\.255/);
		expect(stdout).toMatch(/^default via 10\.0\.2\.2 dev eth0/m);
		expect(stdout).toMatch(/^nameserver 10\.0\.2\.3$/m);
	});

	it("gets a lease by DHCP where a program asks for one", async () => {
		expect(await guest.run(LEASE)).toMatchObject(succeeded(LEASED));
	});

	it("reaches the router by ping", async () => {
		expect(await guest.run(`ping -c 2 -i 0.1 ${GATEWAY}`)).toMatchObject({
			exitCode: 0,
			stdout: expect.stringContaining("2 packets transmitted, 2 packets received"),
		});
	});
});

describe("a port of the host that is opened", () => {
	it("serves the guest's wget", async () => {
		expect(await guest.run(get(web.port, "hello"))).toMatchObject(succeeded("hello from the host\n"));
	});

	it("gives 4 MiB as they are", async () => {
		expect(await guest.run(`${get(web.port, String(4 * MIB))} | sha256sum`)).toMatchObject(
			succeeded(`${sha256(noise(4 * MIB))}  -\n`),
		);
	});

	it("takes 4 MiB as they are", async () => {
		// Text: busybox sends what it posts up to the first NUL.
		const { stdout } = await guest.run(
			`head -c ${3 * MIB} /dev/urandom | base64 -w 0 >/tmp/up; sha256sum </tmp/up | cut -d' ' -f1
			wget -q -O - --post-file /tmp/up http://${GATEWAY}:${web.port}/; rm /tmp/up`,
		);
		const [sent, received, ...rest] = stdout.split("\n");
		expect(sent).toMatch(/^[0-9a-f]{64}$/);
		expect(received).toBe(sent);
		expect(rest).toEqual([""]);
	});

	it("exchanges UDP datagrams with the guest", async () => {
		const { stdout, exitCode } = await guest.run(`tftp -g -r datagram -l - ${GATEWAY} ${tftp.port}`);
		expect(exitCode).toBe(0);
		expect(stdout).toBe(Buffer.alloc(512, "datagram").toString().repeat(8));
	});
});

describe("what is not opened", () => {
	it("is refused at once, and nothing of it reaches the host", async () => {
		const secret = await startCountingServer();
		const relayUrl = await guest.network.attach();
		const relayPort = relayUrl.kind === "relay" ? new URL(relayUrl.url).port : expect.fail("no relay");
		const targets = [
			`${GATEWAY}:${secret.port}`,
			`${GATEWAY}:${relayPort}`,
			`${NAME_SERVER}:80`,
			`${NAME_SERVER}:${secret.port}`,
			`127.0.0.1:${secret.port}`,
			"169.254.169.254:80",
			"10.1.2.3:80",
			"192.168.1.1:80",
			...(lanAddress() === undefined ? [] : [`${lanAddress()}:${secret.port}`, `${lanAddress()}:${web.port}`]),
		];
		try {
			const { stdout, durationMs } = await guest.run(
				`for to in ${targets.join(" ")}; do echo "$to $(wget -q -O - http://$to/ 2>&1)"; done`,
			);
			const refused = targets.map((target) => {
				const [host] = target.split(":");
				return `${target} wget: can't connect to remote host (${host}): Connection refused`;
			});
			expect(stdout.trimEnd().split("\n")).toEqual(refused);
			// A connection that nobody answers would take the kernel's second SYN, a second later.
			expect(durationMs).toBeLessThan(1_000 * targets.length);
			expect(secret.connections).toBe(0);
		} finally {
			secret.close();
		}
	});

	it("stands in the audit log", async () => {
		await guest.run(get(1, "", "169.254.169.254"));
		await expect
			.poll(() =>
				readFileSync(auditLogPath(guest.home), "utf8")
					.trim()
					.split("\n")
					.map((line) => JSON.parse(line)),
			)
			.toContainEqual(
				expect.objectContaining({ protocol: "tcp", address: "169.254.169.254", port: 1, verdict: "refused" }),
			);
	});
});

/** The addresses that busybox's nslookup prints, behind those of the server itself. */
async function lookUp(name: string): Promise<string[]> {
	const { stdout } = await guest.run(`nslookup -type=a ${name}`);
	const [, answer = ""] = stdout.split(/\n\n/, 2);
	return [...answer.matchAll(/^Address: (.+)$/gm)].map(([, address = ""]) => address);
}

describe("names", () => {
	it("are looked up at the server that --dns names", async () => {
		expect(await lookUp("public.test")).toEqual(["93.184.216.34"]);
		expect(names.asked).toContain("udp public.test A");
	});

	it.each([
		"private.test",
		"loopback.test",
		"metadata.test",
		"machine.test",
	])("have no address that is closed: %s", async (name) => {
		expect(await lookUp(name)).toEqual([]);
		expect(names.asked).toContain(`udp ${name} A`);
	});

	it("keep their public addresses where others are closed", async () => {
		expect(await lookUp("mixed.test")).toEqual(["93.184.216.34"]);
	});

	it("that don't exist don't exist", async () => {
		const { stdout, exitCode } = await guest.run("nslookup -type=a nowhere.test");
		expect(stdout).toContain("can't find nowhere.test: NXDOMAIN");
		expect(exitCode).toBe(1);
	});

	it("are answered over TCP with more than a datagram holds", async () => {
		const query = Buffer.concat([
			Buffer.from("123401000001000000000000", "hex"),
			Buffer.from("\x06public\x04test\0", "latin1"),
			Buffer.from("00100001", "hex"),
		]);
		const message = Buffer.concat([Buffer.from([0, query.length]), query]);
		const { stdout } = await guest.run(
			`echo ${message.toString("base64")} | base64 -d | nc ${NAME_SERVER} 53 | xxd -p | tr -d '\\n'`,
		);
		const answer = Buffer.from(stdout, "hex");
		expect(answer.readUInt16BE(0)).toBe(answer.length - 2);
		expect(answer.readUInt16BE(2)).toBe(0x1234);
		expect(answer.length).toBeGreaterThan(LONG_TEXT_BYTES);
		expect(answer.toString("latin1")).toContain("j".repeat(200));
		expect(names.asked).toContain("tcp public.test TXT");
	});
});

describe("a server in the guest", () => {
	const fetchText = async (url: string) => await (await fetch(url)).text();

	it("is reached through --forward and through forwardPort, again and again", async () => {
		await guest.run(`mkdir -p /www; echo from the guest >/www/index.html; httpd -p ${GUEST_PORT} -h /www`);
		const url = await guest.network.forwardPort(9090);
		expect(await guest.network.forwardPort(9090)).toBe(url);
		await guest.run("httpd -p 9090 -h /www");
		for (let i = 0; i < 3; i++) {
			expect(await fetchText(`http://127.0.0.1:${forwardedPort}/`)).toBe("from the guest\n");
			expect(await fetchText(`${url}/index.html`)).toBe("from the guest\n");
		}
		await guest.run("killall httpd");
	});

	it("is not there before it listens: the client is let go", async () => {
		const url = new URL(await guest.network.forwardPort(9191));
		const client = connect(Number(url.port), url.hostname);
		await closing(client);
	});

	it("sees connections while the machine is otherwise idle, which wake it and let it sleep again", async () => {
		// Outside of the commands' group, a program doesn't keep the machine awake by itself.
		await guest.run(
			`(echo 0 >/sys/fs/cgroup/cgroup.procs; exec httpd -f -p ${GUEST_PORT} -h /www) & server=$!
			until netstat -tln | grep -q :${GUEST_PORT}; do usleep 10000; done`,
		);
		for (let i = 0; i < 2; i++) {
			await expect.poll(() => guest.machine.state, { timeout: 10_000 }).toBe("paused");
			const client = connect(forwardedPort, "127.0.0.1");
			let answer = "";
			client.on("data", (bytes) => {
				answer += bytes;
			});
			client.write("GET / HTTP/1.0\r\n\r\n");
			await once(client, "data");
			expect(guest.machine.state).toBe("running");
			await once(client, "close");
			expect(answer).toContain("from the guest");
		}
		await expect.poll(() => guest.machine.state, { timeout: 10_000 }).toBe("paused");
		await guest.run("kill $server");
	});

	it("keeps the machine awake while a connection is open", async () => {
		await guest.run(
			`mkfifo /tmp/in; (echo 0 >/sys/fs/cgroup/cgroup.procs; exec nc -l -p ${GUEST_PORT} <>/tmp/in) &
			until netstat -tln | grep -q :${GUEST_PORT}; do usleep 10000; done`,
		);
		await expect.poll(() => guest.machine.state, { timeout: 10_000 }).toBe("paused");
		const client = connect(forwardedPort, "127.0.0.1");
		await once(client, "connect");
		await expect.poll(() => guest.machine.state, { timeout: 10_000 }).toBe("running");
		const [said] = await Promise.all([
			once(client, "data"),
			guest.run("echo still here >/tmp/in").then(() => expect(guest.machine.state).toBe("running")),
		]);
		expect(String(said)).toBe("still here\n");
		client.destroy();
		// The relay's end, having closed first, is in TIME-WAIT, which keeps nobody awake: 10 s would be too long.
		await expect.poll(() => guest.machine.state, { timeout: 5_000 }).toBe("paused");
		await guest.run("rm /tmp/in");
	});
});

/** Resolves when the connection is over, however it ends. */
function closing(socket: Socket): Promise<void> {
	socket.on("error", () => {});
	return new Promise((resolve) => socket.once("close", () => resolve()));
}

/** Opens a connection to the host, by a program of the guest that tells in /tmp/ended how it ended; gives the host's end. */
async function openLine(): Promise<Socket> {
	const accepted = once(lines, "connection");
	await guest.run(
		`rm -f /tmp/ended; mkfifo /tmp/ended
		{ heard=$(wget -q -O - http://${GATEWAY}:${linesPort}/ 2>&1); echo "$? $heard" >/tmp/ended; } &`,
	);
	const [socket] = (await accepted) as [Socket];
	expect(String(await once(socket, "data"))).toMatch(/^GET \/ HTTP/);
	return socket;
}

/** A saved state held in memory. */
async function keep(): Promise<MachineSaved> {
	return guest.machine.save(async ({ state, ...rest }) => {
		const chunks: Uint8Array[] = [];
		for await (const chunk of state) chunks.push(chunk);
		return {
			...rest,
			state: (async function* () {
				yield* chunks;
			})(),
		};
	});
}

/** What a program of the past must see in a machine that has come back, and that all else works there at once. */
async function expectFreshNetwork(restored: Guest): Promise<void> {
	const { stdout } = await restored.run(
		`cat /tmp/ended; ${LEASE}; ${get(web.port, "hello")}; nslookup -type=a public.test | grep 93; ping -c 1 ${GATEWAY} | grep -c ttl=`,
		{ timeoutMs: 10_000 },
	);
	expect(stdout).toBe(
		`1 wget: error getting response: Connection reset by peer\n${LEASED}hello from the host\nAddress: 93.184.216.34\n1\n`,
	);
}

describe("a snapshot with an open connection", () => {
	let line: object;
	beforeAll(() => {
		line = { protocol: "tcp", guestPort: expect.any(Number), remoteAddress: GATEWAY, remotePort: linesPort };
	});

	it("comes back in place: the host's end is closed, the guest's is reset, and the network works at once", async () => {
		const socket = await openLine();
		const saved = await keep();
		expect(saved.openFlows).toContainEqual(line);
		await Promise.all([closing(socket), guest.machine.restore(saved)]);
		await expectFreshNetwork(guest);
		expect(guest.network.openFlows()).not.toContainEqual(line);
	});

	it("comes back in another machine in the same way", async () => {
		const socket = await openLine();
		const saved = await keep();
		await Promise.all([closing(socket), guest.machine.stop()]);
		expect(guest.network.openFlows()).toEqual([]);
		const other = await startGuest({
			imageHome: guest.home,
			network: {
				network: "relay",
				hostPort: [String(web.port)],
				dns: [`127.0.0.1:${names.port}`],
			},
		});
		try {
			await other.machine.restore(saved);
			await expectFreshNetwork(other);
		} finally {
			await other.dispose();
		}
	});
});

describe("a machine that stops", () => {
	it("takes its connections and its forwards along", async () => {
		const [port = 0] = await freePorts(1);
		const ending = await startGuest({
			imageHome: guest.home,
			network: { network: "relay", hostPort: [String(linesPort)], forward: [`${port}:${GUEST_PORT}`] },
		});
		try {
			const accepted = once(lines, "connection");
			await ending.run(`mkfifo /tmp/in; nc -l -p ${GUEST_PORT} <>/tmp/in & nc ${GATEWAY} ${linesPort} <>/tmp/in &`);
			const [outbound] = (await accepted) as [Socket];
			const inbound = connect(port, "127.0.0.1");
			await once(inbound, "connect");
			await expect.poll(() => ending.network.openFlows().length).toBe(2);
			await Promise.all([closing(inbound), closing(outbound), ending.machine.stop()]);
			expect(ending.network.openFlows()).toEqual([]);
			await expect
				.poll(() =>
					once(connect(port, "127.0.0.1"), "connect").then(
						() => "open",
						(error) => error.code,
					),
				)
				.toBe("ECONNREFUSED");
		} finally {
			await ending.dispose();
		}
	});
});

describe("without a relay", () => {
	test("--network none leads nowhere", async () => {
		const alone = await startGuest({ imageHome: guest.home, network: { network: "none" } });
		try {
			const { stdout, exitCode } = await alone.run(`ping -c 1 -W 1 ${GATEWAY} 2>&1`);
			expect(stdout).toContain("100% packet loss");
			expect(exitCode).toBe(1);
			await expect(alone.network.forwardPort(80)).rejects.toMatchObject({ code: "invalid-argument" });
		} finally {
			await alone.dispose();
		}
	});

	test("--network fetch brings HTTP by v86 itself, by names that its own name server makes up", async () => {
		const simple = await startGuest({ imageHome: guest.home, network: { network: "fetch" } });
		try {
			expect(await simple.run(`wget -q -O - http://${web.port}.external/hello`)).toMatchObject(
				succeeded("hello from the host\n"),
			);
			expect((await simple.run("nslookup -type=a public.test")).stdout).toMatch(/^Server:\s+10\.0\.2\.3$/m);
			await expect(simple.network.forwardPort(80)).rejects.toMatchObject({ code: "invalid-argument" });
		} finally {
			await simple.dispose();
		}
	});
});
