/** Everyday network programs in Debian, against real servers: those of the host, the distribution's mirror, a registry. */

import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, it, type TestContext } from "vitest";
import { WebSocketServer } from "ws";
import { chooseMirrors } from "../../src/image/sources/debian/mirror.js";
import {
	freePorts,
	GATEWAY,
	type HostService,
	listen,
	MIB,
	NAME_SERVER,
	noise,
	sha256,
	startUdpEcho,
	startWebServer,
} from "../guest/network-support.js";
import { type Guest, type Outcome, startGuest } from "../guest/support.js";
import {
	type Authority,
	createAuthority,
	createRepository,
	describePackage,
	missingProgram,
	type RegistryPackage,
	type Repository,
	rulesFor,
	startGitDaemon,
	startGitOverHttps,
	withAptSources,
} from "./network-support.js";

const REQUESTS = 1_000;
const CONNECTIONS = 200;
/** For what keeps the guest's one slow processor busy, ms; 10 to 50 s of it on a host that does nothing else. */
const LONG_MS = 280_000;
const LONG_TEST_MS = 300_000;
const GUEST_UDP_PORT = 5300;
/** Small, without dependencies, and old enough to be everywhere. */
const PACKAGE = "is-number@7.0.0";

const folder = mkdtempSync(join(tmpdir(), "sandbox86-network-"));
const missing = missingProgram(["git", "openssl"]);
const services: HostService[] = [];
let mirror: string;
let mirrorRules: string[] | undefined;
let npmPackage: RegistryPackage | undefined;
let repository: Repository;
let authority: Authority;
let guest: Guest;
const ports = { web: 0, udpEcho: 0, webSocket: 0, keepAlive: 0, parallel: 0, gitDaemon: 0, gitHttps: 0, forward: 0 };

/** One connection and its requests. */
const keepAlive = { connections: 0, requests: 0 };
const keepAliveServer = createHttpServer({ keepAliveTimeout: 60_000 }, (request, response) => {
	keepAlive.requests += 1;
	response.end(`${request.url} `.repeat(20));
});
keepAliveServer.on("connection", () => {
	keepAlive.connections += 1;
});

/** Answers nobody before all are there; then gives each its own bytes back. */
const waiting: Socket[] = [];
const parallelServer = createServer({ allowHalfOpen: true }, (socket) => {
	socket.on("error", () => {});
	waiting.push(socket);
	if (waiting.length === CONNECTIONS) for (const each of waiting) each.pipe(each);
});

beforeAll(async () => {
	const serve = async (service: Promise<HostService>) => {
		services.push(await service);
		return (await service).port;
	};
	ports.web = await serve(startWebServer());
	ports.udpEcho = await serve(startUdpEcho());
	ports.keepAlive = await serve(listen(keepAliveServer));
	ports.parallel = await serve(listen(parallelServer));
	const webServer = createHttpServer();
	const webSocket = new WebSocketServer({ server: webServer });
	webSocket.on("connection", (socket) =>
		socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary })),
	);
	ports.webSocket = await serve(listen(webServer));
	[ports.forward = 0] = await freePorts(1);
	if (missing === undefined) {
		repository = createRepository(join(folder, "git"));
		authority = createAuthority(join(folder, "authority"));
		ports.gitDaemon = await serve(startGitDaemon(repository));
		ports.gitHttps = await serve(startGitOverHttps(repository, authority));
	}
	mirror = (await chooseMirrors(undefined)).archive[0] ?? "";
	mirrorRules = await rulesFor(mirror);
	npmPackage = describePackage(PACKAGE);
	const registryRules = npmPackage === undefined ? undefined : await rulesFor(npmPackage.tarball);
	guest = await startGuest({
		image: "base",
		imageHome: inject("home"),
		memoryMiB: 512,
		network: {
			network: "relay",
			allow: [...(mirrorRules ?? []), ...(registryRules ?? [])],
			hostPort: Object.values(ports)
				.filter((port) => port !== 0 && port !== ports.forward)
				.map(String),
			forward: [`${ports.forward}:${GUEST_UDP_PORT}/udp`],
		},
	});
}, 300_000);
afterAll(async () => {
	await guest?.dispose();
	for (const { close } of services) close();
	rmSync(folder, { recursive: true, force: true });
});

/** Runs a Python program in the guest. */
async function python(program: string, timeoutMs: number): Promise<Outcome> {
	await guest.machine.writeFile("/tmp/program.py", Buffer.from(program));
	return await guest.run("python3 /tmp/program.py", { timeoutMs });
}

function skipWithout(context: TestContext, what: unknown, why: string): void {
	context.skip(what === undefined || what === false, why);
}

describe("large transfers", () => {
	it("bring 16 MiB as they are", async () => {
		const { stdout } = await guest.run(`curl -sS http://${GATEWAY}:${ports.web}/${16 * MIB} | sha256sum`, {
			timeoutMs: 60_000,
		});
		expect(stdout).toBe(`${sha256(noise(16 * MIB))}  -\n`);
	});

	it("take 16 MiB as they are", async () => {
		const { stdout } = await guest.run(
			`head -c ${16 * MIB} /dev/urandom >/tmp/up; sha256sum </tmp/up | cut -d' ' -f1
			curl -sS -T /tmp/up http://${GATEWAY}:${ports.web}/; rm /tmp/up`,
			{ timeoutMs: 60_000 },
		);
		const [sent, received] = stdout.split("\n");
		expect(sent).toMatch(/^[0-9a-f]{64}$/);
		expect(received).toBe(sent);
	});
});

describe("many requests", () => {
	it(
		`are ${REQUESTS} on one connection`,
		async () => {
			const { stdout, stderr } = await python(
				`import http.client
c = http.client.HTTPConnection("${GATEWAY}", ${ports.keepAlive}, timeout=30)
right = 0
for i in range(${REQUESTS}):
    c.request("GET", f"/{i}")
    if c.getresponse().read() == f"/{i} ".encode() * 20:
        right += 1
print(right)
`,
				LONG_MS,
			);
			expect({ stdout, stderr }).toEqual({ stdout: `${REQUESTS}\n`, stderr: "" });
			expect(keepAlive).toEqual({ connections: 1, requests: REQUESTS });
		},
		LONG_TEST_MS,
	);

	it(
		`are on ${CONNECTIONS} connections at the same time`,
		async () => {
			const { stdout, stderr } = await python(
				`import asyncio
async def one(i):
    reader, writer = await asyncio.open_connection("${GATEWAY}", ${ports.parallel})
    sent = f"{i}:".encode() * 500
    writer.write(sent)
    writer.write_eof()
    got = await reader.read(-1)
    writer.close()
    return got == sent
async def main():
    print(sum(await asyncio.gather(*[one(i) for i in range(${CONNECTIONS})])))
asyncio.run(main())
`,
				LONG_MS,
			);
			expect({ stdout, stderr }).toEqual({ stdout: `${CONNECTIONS}\n`, stderr: "" });
		},
		LONG_TEST_MS,
	);
});

describe("UDP", () => {
	it("goes out to a port of the host that is opened, and comes back", async () => {
		const { stdout, stderr } = await python(
			`import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect(("${GATEWAY}", ${ports.udpEcho}))
right = 0
for size in (0, 1, 100, 1400, 1472, 1473, 4000, 9000):
    sent = bytes(i * size % 251 for i in range(size))
    s.send(sent)
    right += s.recv(65535) == sent
print(right)
`,
			60_000,
		);
		expect({ stdout, stderr }).toEqual({ stdout: "8\n", stderr: "" });
	});

	it("comes in through a forward", async () => {
		await guest.machine.writeFile(
			"/tmp/program.py",
			Buffer.from(`import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", ${GUEST_UDP_PORT}))
print("ready", file=open("/tmp/ready", "w"))
while True:
    data, who = s.recvfrom(65535)
    s.sendto(data.upper(), who)
`),
		);
		await guest.run("mkfifo /tmp/ready; python3 /tmp/program.py & server=$!; cat /tmp/ready");
		const client = createSocket("udp4");
		try {
			for (const text of ["one", "two", "x".repeat(1400)]) {
				const answered = new Promise<Buffer>((resolve) => client.once("message", resolve));
				client.send(text, ports.forward, "127.0.0.1");
				expect((await answered).toString()).toBe(text.toUpperCase());
			}
		} finally {
			client.close();
			await guest.run("kill $server; rm /tmp/ready");
		}
	});
});

describe("a WebSocket", () => {
	it("echoes text and 100,000 bytes, and closes", async () => {
		const { stdout, stderr } = await python(
			`import base64, os, socket, struct
s = socket.create_connection(("${GATEWAY}", ${ports.webSocket}), 30)
key = base64.b64encode(os.urandom(16)).decode()
s.sendall(f"GET / HTTP/1.1\\r\\nHost: host\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
          f"Sec-WebSocket-Key: {key}\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n".encode())
f = s.makefile("rb")
print(f.readline().split()[1].decode())
while f.readline() != b"\\r\\n":
    pass
def send(opcode, data):
    mask = os.urandom(4)
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\\xff" + struct.pack(">Q", len(data))
    repeated = (mask * (len(data) // 4 + 1))[:len(data)]
    masked = (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(data), "big")
    s.sendall(bytes([0x80 | opcode]) + size + mask + masked)
def receive():
    opcode, size = f.read(2)
    if size == 126: size, = struct.unpack(">H", f.read(2))
    elif size == 127: size, = struct.unpack(">Q", f.read(8))
    return opcode & 15, f.read(size)
big = os.urandom(100_000)
send(1, "grüße".encode()); print(receive() == (1, "grüße".encode()))
send(2, big); print(receive() == (2, big))
send(8, struct.pack(">H", 1000)); print(receive() == (8, struct.pack(">H", 1000)))
print(f.read() == b"")
`,
			60_000,
		);
		expect({ stdout, stderr }).toEqual({ stdout: "101\nTrue\nTrue\nTrue\nTrue\n", stderr: "" });
	});
});

describe("git", () => {
	const cloned = (url: string) =>
		`rm -rf /tmp/clone && git clone --quiet ${url} /tmp/clone && git -C /tmp/clone rev-parse HEAD && git -C /tmp/clone fsck --strict`;

	it(
		"clones from a git daemon",
		async (context) => {
			context.skip(missing !== undefined, `this host has no ${missing}`);
			const { stdout, stderr, exitCode } = await guest.run(
				cloned(`git://${GATEWAY}:${ports.gitDaemon}/repository.git`),
				{
					timeoutMs: 200_000,
				},
			);
			expect({ stdout, exitCode }, stderr).toEqual({ stdout: `${repository.head}\n`, exitCode: 0 });
		},
		LONG_TEST_MS,
	);

	it(
		"clones over HTTPS, with an authority that it is given only",
		async (context) => {
			context.skip(missing !== undefined, `this host has no ${missing}`);
			await guest.machine.writeFile("/tmp/authority.pem", authority.certificate);
			const url = `https://${GATEWAY}:${ports.gitHttps}/repository.git`;
			const { stdout, stderr, exitCode } = await guest.run(`export GIT_SSL_CAINFO=/tmp/authority.pem; ${cloned(url)}`, {
				timeoutMs: 200_000,
			});
			expect({ stdout, exitCode }, stderr).toEqual({ stdout: `${repository.head}\n`, exitCode: 0 });
			const distrusting = await guest.run(`unset GIT_SSL_CAINFO; ${cloned(url)}`, { timeoutMs: 60_000 });
			expect(distrusting.exitCode).toBe(128);
			expect(distrusting.stderr).toContain("certificate");
		},
		LONG_TEST_MS,
	);
});

describe("the outside", () => {
	it("is found by name, over UDP and over TCP", async (context) => {
		skipWithout(context, mirrorRules, `this host can't resolve ${mirror}`);
		const name = new URL(mirror).hostname;
		const { stdout, stderr } = await python(
			`import json, socket, struct
name = "${name}"
query = struct.pack(">6H", 0x1234, 0x0100, 1, 0, 0, 0) + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0" + struct.pack(">2H", 1, 1)
def skip(m, at):
    while m[at] and m[at] < 192: at += 1 + m[at]
    return at + (2 if m[at] else 1)
def parse(m):
    ident, flags, questions, answers = struct.unpack(">4H", m[:8])
    at, found = skip(m, 12) + 4, []
    for _ in range(answers):
        at = skip(m, at)
        kind, _, _, size = struct.unpack(">2HIH", m[at:at + 10])
        at += 10
        if kind == 1: found.append(socket.inet_ntoa(m[at:at + size]))
        at += size
    return {"id": ident, "isResponse": flags >> 15, "code": flags & 15, "hasAddresses": len(found) > 0}
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(20)
u.sendto(query, ("${NAME_SERVER}", 53))
print(json.dumps(parse(u.recv(4096))))
t = socket.create_connection(("${NAME_SERVER}", 53), 20)
t.sendall(struct.pack(">H", len(query)) + query)
f = t.makefile("rb")
print(json.dumps(parse(f.read(struct.unpack(">H", f.read(2))[0]))))
`,
			60_000,
		);
		const answer = { id: 0x1234, isResponse: 1, code: 0, hasAddresses: true };
		expect(stderr).toBe("");
		expect(
			stdout
				.trim()
				.split("\n")
				.map((line) => JSON.parse(line)),
		).toEqual([answer, answer]);
	});

	it("is closed where no --allow names it", async (context) => {
		skipWithout(context, mirrorRules, `this host can't resolve ${mirror}`);
		const { stdout, exitCode } = await guest.run("curl -sS -m 20 http://closed.example/ 2>&1");
		expect(stdout).toContain("Could not resolve host: closed.example");
		expect(exitCode).toBe(6);
		expect((await guest.run("curl -sS -m 20 http://192.0.32.8/ 2>&1")).exitCode).toBe(7);
	});

	it("gives an npm package over HTTPS, whole", async (context) => {
		if (npmPackage === undefined) return context.skip("this host has no npm that reaches its registry");
		const { tarball, integrity, authoritiesPath } = npmPackage;
		let trust = "";
		if (authoritiesPath !== undefined) {
			await guest.machine.writeFile("/tmp/authorities.pem", readFileSync(authoritiesPath));
			trust = "--cacert /tmp/authorities.pem";
		}
		const { stderr, exitCode } = await guest.run(`curl -sSf ${trust} -o /tmp/package.tgz ${tarball}`, {
			timeoutMs: 60_000,
		});
		expect(exitCode, stderr).toBe(0);
		const { bytes } = await guest.machine.readFile("/tmp/package.tgz", { limit: 4 * MIB });
		expect(`sha512-${createHash("sha512").update(bytes).digest("base64")}`).toBe(integrity);
		expect((await guest.run("tar -xzOf /tmp/package.tgz package/package.json")).stdout).toContain('"is-number"');
	});

	it("gives a package of the distribution, which apt checks and installs", async (context) => {
		skipWithout(context, mirrorRules, `this host can't resolve ${mirror}`);
		await guest.run("rm -f /etc/apt/sources.list.d/*");
		const isThere = await withAptSources(mirror, async (sources) => {
			await guest.run("rm -rf /var/lib/apt/lists/*");
			await guest.machine.writeFile("/etc/apt/sources.list.d/debian.sources", Buffer.from(sources));
			const updated = await guest.run("apt-get -q update 2>&1", { timeoutMs: 400_000 });
			expect(updated, updated.stdout).toMatchObject({ exitCode: 0, timedOut: false });
		});
		context.skip(!isThere, `the mirror's packages are not those that its signed index names: ${mirror}`);
		const installed = await guest.run("DEBIAN_FRONTEND=noninteractive apt-get -q -y install hello 2>&1", {
			timeoutMs: 200_000,
		});
		expect(installed, installed.stdout).toMatchObject({ exitCode: 0, timedOut: false });
		expect((await guest.run("hello")).stdout).toBe("Hello, world!\n");
	}, 1_020_000);
});
