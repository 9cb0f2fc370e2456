/** Host programs and files that the network tests of image base talk to. */

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { lookup } from "node:dns/promises";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer as createHttpsServer } from "node:https";
import { join } from "node:path";
import { specialRangeOf } from "../../src/relay/egress/special-ranges.js";
import { parseIpv4Address } from "../../src/relay/wire/address.js";
import { freePorts, GATEWAY, type HostService, listen, noise } from "../guest/network-support.js";

/** The first of `programs` that this host has not. */
export function missingProgram(programs: readonly string[]): string | undefined {
	return programs.find((program) => spawnSync(program, ["--version"], { stdio: "ignore" }).error !== undefined);
}

/**
 * Rules that let a machine reach `url`'s host, or undefined where the host itself can't name it. Some networks answer for
 * public names with addresses of special ranges: each of those needs a rule of its own.
 */
export async function rulesFor(url: string): Promise<string[] | undefined> {
	const { hostname } = new URL(url);
	const found = await lookup(hostname, { all: true, family: 4 }).catch(() => undefined);
	if (found === undefined) return undefined;
	const special = found.map(({ address }) => address).filter((address) => isSpecial(address));
	return [hostname, ...special];
}

function isSpecial(address: string): boolean {
	const parsed = parseIpv4Address(address);
	return parsed !== undefined && specialRangeOf(parsed) !== undefined;
}

/** What names Debian 13 on a mirror. */
const SUITES = ["trixie", "stable"];
const INDEX = "main/binary-i386/Packages.xz";

/**
 * Does `work` with apt's sources of a suite whose packages are those that its signed index names. A mirror, or a cache in
 * front of it, may be caught between two states, also while apt reads it: then it is done once more.
 *
 * @returns Whether there is such a suite.
 */
export async function withAptSources(mirror: string, work: (sources: string) => Promise<void>): Promise<boolean> {
	for (let isLast = false; ; isLast = true) {
		const suite = await suiteThatFits(mirror);
		if (suite === undefined) return false;
		try {
			await work(
				`Types: deb\nURIs: ${mirror}\nSuites: ${suite}\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.pgp\n`,
			);
			return true;
		} catch (error) {
			if (isLast || !String(error).includes("Mirror sync in progress")) throw error;
		}
	}
}

async function suiteThatFits(mirror: string): Promise<string | undefined> {
	for (const suite of SUITES) {
		const folder = `${mirror}/dists/${suite}`;
		const release = await (await fetch(`${folder}/InRelease`)).text();
		const lengths = [...release.matchAll(/^ [0-9a-f]{64} +(\d+) (\S+)$/gm)];
		const expected = lengths.find(([, , path]) => path === INDEX)?.[1];
		const index = await fetch(`${folder}/${INDEX}`, { method: "HEAD" });
		if (expected !== undefined && index.headers.get("content-length") === expected) return suite;
	}
	return undefined;
}

/** A package as its registry describes it. */
export interface RegistryPackage {
	readonly tarball: string;
	/** Subresource integrity: "sha512-…". */
	readonly integrity: string;
	/** PEM file of the authorities that this host's npm trusts, if it has one of its own. */
	readonly authoritiesPath: string | undefined;
}

/** Asks by this host's npm; undefined where it can't tell. */
export function describePackage(spec: string): RegistryPackage | undefined {
	const npm = (...args: string[]) =>
		execFileSync("npm", [...args, "--loglevel=error"], { encoding: "utf8", timeout: 60_000 }).trim();
	try {
		const { tarball, integrity } = JSON.parse(npm("view", spec, "dist", "--json"));
		const cafile = npm("config", "get", "cafile");
		return { tarball, integrity, authoritiesPath: cafile === "null" || cafile === "" ? undefined : cafile };
	} catch {
		return undefined;
	}
}

export interface Repository {
	/** The folder that holds it, bare, as repository.git. */
	readonly root: string;
	/** SHA-1 of its last commit. */
	readonly head: string;
}

/** Three commits with 1 MiB that doesn't compress. */
export function createRepository(root: string): Repository {
	const work = join(root, "work");
	mkdirSync(work, { recursive: true });
	const git = (...args: string[]) =>
		execFileSync("git", ["-c", "user.name=Test", "-c", "user.email=test@example.org", ...args], {
			cwd: work,
			env: { PATH: process.env.PATH, HOME: root, GIT_CONFIG_NOSYSTEM: "1" },
			encoding: "utf8",
		}).trim();
	git("init", "--quiet", "--initial-branch=main");
	for (const commit of [1, 2, 3]) {
		writeFileSync(join(work, `file${commit}`), noise(commit === 2 ? 1_048_576 : 1_000 * commit));
		git("add", ".");
		git("commit", "--quiet", "--message", `commit ${commit}`);
	}
	git("clone", "--quiet", "--bare", work, join(root, "repository.git"));
	return { root, head: git("rev-parse", "HEAD") };
}

function gitProgram(name: string): string {
	return join(execFileSync("git", ["--exec-path"], { encoding: "utf8" }).trim(), name);
}

/** git:// for the repository. */
export async function startGitDaemon({ root }: Repository): Promise<HostService> {
	const [port = 0] = await freePorts(1);
	const daemon = spawn(
		gitProgram("git-daemon"),
		["--verbose", "--export-all", `--base-path=${root}`, "--listen=127.0.0.1", `--port=${port}`, root],
		{ stdio: ["ignore", "ignore", "pipe"] },
	);
	let said = "";
	await new Promise<void>((resolve, reject) => {
		// Read to its end: the daemon writes a line for each client.
		daemon.stderr.on("data", (bytes) => {
			said += bytes;
			if (said.includes("Ready to rumble")) resolve();
		});
		daemon.on("exit", () => reject(new Error(`git daemon ended: ${said}`)));
	});
	return { port, close: () => void daemon.kill() };
}

/** Keys and certificates, made for one run. */
export interface Authority {
	/** PEM of the authority's certificate. */
	readonly certificate: Buffer;
	readonly serverKey: Buffer;
	/** Of the host as machines see it. */
	readonly serverCertificate: Buffer;
}

export function createAuthority(folder: string): Authority {
	mkdirSync(folder, { recursive: true });
	const openssl = (...args: string[]) => execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
	const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
	openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test authority", "-days", "2");
	openssl("req", ...key, "-keyout", "server.key", "-out", "server.csr", "-subj", `/CN=${GATEWAY}`);
	writeFileSync(join(folder, "names"), `subjectAltName=IP:${GATEWAY}\n`);
	const signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"];
	openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", ...signing);
	const read = (name: string) => readFileSync(join(folder, name));
	return { certificate: read("ca.pem"), serverKey: read("server.key"), serverCertificate: read("server.pem") };
}

/** https:// for the repository, by git's own CGI program. */
export async function startGitOverHttps({ root }: Repository, authority: Authority): Promise<HostService> {
	const backend = gitProgram("git-http-backend");
	const server = createHttpsServer(
		{ key: authority.serverKey, cert: authority.serverCertificate },
		async (request, response) => {
			const { pathname, search } = new URL(request.url ?? "/", "https://host");
			const cgi = spawn(backend, [], {
				stdio: ["pipe", "pipe", "ignore"],
				env: {
					PATH: process.env.PATH,
					GIT_PROJECT_ROOT: root,
					GIT_HTTP_EXPORT_ALL: "1",
					PATH_INFO: pathname,
					QUERY_STRING: search.slice(1),
					REQUEST_METHOD: request.method,
					CONTENT_TYPE: request.headers["content-type"],
					HTTP_CONTENT_ENCODING: request.headers["content-encoding"],
					GIT_PROTOCOL: request.headers["git-protocol"]?.toString(),
				},
			});
			cgi.stdin.on("error", () => {});
			request.pipe(cgi.stdin);
			let head: Buffer = Buffer.alloc(0);
			for await (const bytes of cgi.stdout) {
				if (response.headersSent) response.write(bytes);
				else head = beginResponse(Buffer.concat([head, bytes]));
			}
			response.end();

			/** CGI (RFC 3875 6): header lines, an empty line, the body. */
			function beginResponse(received: Buffer): Buffer {
				const end = received.indexOf("\r\n\r\n");
				if (end < 0) return received;
				const headers = received
					.toString("latin1", 0, end)
					.split("\r\n")
					.map((line) => line.split(/: */, 2));
				const status = Number.parseInt(headers.find(([name]) => name === "Status")?.[1] ?? "200", 10);
				for (const [name = "", value = ""] of headers) if (name !== "Status") response.setHeader(name, value);
				response.writeHead(status);
				response.write(received.subarray(end + 4));
				return received;
			}
		},
	);
	return await listen(server);
}
