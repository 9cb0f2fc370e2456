import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Downloader, type DownloaderOptions, type VerifiedFile } from "../../../src/image/download.js";
import { silentLog } from "../../../src/log.js";

const CONTENT = Buffer.from(Array.from({ length: 300_000 }, (_, at) => (at * 7919) % 251));
const FILE: VerifiedFile = {
	paths: ["pool/a.deb"],
	sizeBytes: CONTENT.length,
	sha256: createHash("sha256").update(CONTENT).digest("hex"),
};

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

let folder: string;
const servers: Server[] = [];

beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-download-"));
});
afterEach(() => {
	for (const server of servers.splice(0)) {
		server.closeAllConnections();
		server.close();
	}
	rmSync(folder, { recursive: true, force: true });
});

async function serve(handler: Handler): Promise<string> {
	const server = createServer(handler);
	servers.push(server);
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	return `http://127.0.0.1:${(server.address() as AddressInfo).port}/debian`;
}

async function closedPort(): Promise<string> {
	const url = await serve(() => {});
	await new Promise((resolve) => servers.pop()?.close(resolve));
	return url;
}

function downloader(options: Partial<DownloaderOptions> = {}): Downloader {
	return new Downloader({ folder, log: silentLog, retryMs: 1, rounds: 2, stallMs: 5_000, ...options });
}

const whole: Handler = (request, response) => {
	const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? -1);
	if (from < 0) return response.end(CONTENT);
	response.writeHead(206, { "content-range": `bytes ${from}-${CONTENT.length - 1}/${CONTENT.length}` });
	return response.end(CONTENT.subarray(from));
};

/** Sends the first half and breaks the connection. */
const half: Handler = (_request, response) => {
	response.writeHead(200, { "content-length": CONTENT.length });
	response.write(CONTENT.subarray(0, CONTENT.length / 2), () => response.destroy());
};

describe("a download", () => {
	it("arrives, and the second time needs no server", async () => {
		const path = await downloader().fetch([await serve(whole)], FILE);
		expect(readFileSync(path).equals(CONTENT)).toBe(true);
		expect(await downloader().fetch(["http://127.0.0.1:1"], FILE)).toBe(path);
	});

	it("goes on where the server died, and fetches nothing twice", async () => {
		let first = true;
		let received = 0;
		const url = await serve((request, response) => {
			if (!first) return whole(request, response);
			first = false;
			half(request, response);
		});
		await downloader({ onBytes: (bytes) => (received += bytes) }).fetch([url], FILE);
		expect(received).toBe(CONTENT.length);
	});

	it("goes on in a later run after the first one failed", async () => {
		await expect(downloader({ rounds: 1 }).fetch([await serve(half)], FILE)).rejects.toMatchObject({ code: "network" });
		const kept = statSync(join(folder, `sha256-${FILE.sha256}.part`)).size;
		// The server dies with half of it sent; how much of that arrived is the network's business.
		expect(kept).toBeGreaterThan(0);
		expect(kept).toBeLessThanOrEqual(CONTENT.length / 2);
		let received = 0;
		await downloader({ onBytes: (bytes) => (received += bytes) }).fetch([await serve(whole)], FILE);
		expect(received).toBe(CONTENT.length - kept);
	});

	it("starts again where a server knows no ranges", async () => {
		await expect(downloader({ rounds: 1 }).fetch([await serve(half)], FILE)).rejects.toMatchObject({ code: "network" });
		const path = await downloader().fetch([await serve((_request, response) => response.end(CONTENT))], FILE);
		expect(readFileSync(path).equals(CONTENT)).toBe(true);
	});

	it("falls over to the next mirror from one that is down, stalls, lies or has nothing", async () => {
		const mirrors = [
			await closedPort(),
			await serve((_request, response) => {
				response.writeHead(200, { "content-length": CONTENT.length });
				response.write("x");
			}),
			await serve((_request, response) => response.end(Buffer.alloc(CONTENT.length))),
			await serve((_request, response) => response.writeHead(404).end()),
			await serve((_request, response) => response.writeHead(503).end()),
			await serve(whole),
		];
		const path = await downloader({ stallMs: 200 }).fetch(mirrors, FILE);
		expect(readFileSync(path).equals(CONTENT)).toBe(true);
	});

	it("that lies about its hash is refused by name and leaves nothing", async () => {
		const url = await serve((_request, response) => response.end(Buffer.alloc(CONTENT.length)));
		await expect(downloader().fetch([url], FILE)).rejects.toMatchObject({
			code: "corrupt",
			message: expect.stringContaining(`${url}/pool/a.deb is not what the signed index says`),
		});
		expect(readdirSync(folder)).toEqual([]);
	});

	it("whose broken rest of an earlier run does not fit is fetched anew", async () => {
		const other: Handler = (_request, response) => {
			response.writeHead(200, { "content-length": CONTENT.length });
			response.write(Buffer.alloc(1000), () => response.destroy());
		};
		await expect(downloader({ rounds: 1 }).fetch([await serve(other)], FILE)).rejects.toMatchObject({
			code: "network",
		});
		const path = await downloader().fetch([await serve(whole)], FILE);
		expect(readFileSync(path).equals(CONTENT)).toBe(true);
	});

	it("from a server that is down says so", async () => {
		const url = await closedPort();
		await expect(downloader().fetch([url], FILE)).rejects.toThrow(/cannot be fetched: ECONNREFUSED/);
	});

	it("that stalls is given up after the bound", async () => {
		const url = await serve(() => {});
		await expect(downloader({ stallMs: 50, rounds: 1 }).fetch([url], FILE)).rejects.toThrow(/sent nothing for 50 ms/);
	});

	it("of a mirror that is out of step names both sizes and is not repeated", async () => {
		let requests = 0;
		const url = await serve((_request, response) => {
			requests++;
			response.end("short");
		});
		await expect(downloader({ rounds: 4 }).fetch([url], FILE)).rejects.toThrow(
			"has 5 bytes instead of the 300000 of the signed index",
		);
		expect(requests).toBe(1);
	});

	it("stops when it is cancelled, and keeps what it has", async () => {
		const controller = new AbortController();
		const url = await serve((_request, response) => {
			response.writeHead(200, { "content-length": CONTENT.length });
			response.write(CONTENT.subarray(0, 1000));
		});
		const fetching = downloader({ signal: controller.signal, onBytes: () => controller.abort() }).fetch([url], FILE);
		await expect(fetching).rejects.toMatchObject({ code: "cancelled" });
		expect(existsSync(join(folder, `sha256-${FILE.sha256}.part`))).toBe(true);
	});

	const canMount = process.getuid?.() === 0 && process.platform === "linux";
	it.skipIf(!canMount)(
		`onto a full disk is a clear error${canMount ? "" : " (skipped: needs root to mount a tmpfs)"}`,
		async () => {
			execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]);
			try {
				await expect(downloader().fetch([await serve(whole)], FILE)).rejects.toMatchObject({
					code: "no-space",
					message: expect.stringContaining("the disk is full"),
				});
				expect(existsSync(join(folder, `sha256-${FILE.sha256}`))).toBe(false);
			} finally {
				execFileSync("umount", [folder]);
			}
		},
	);

	it("of a small file that no mirror has gives undefined, and too long a one is refused", async () => {
		const absent = await serve((_request, response) => response.writeHead(404).end());
		expect(await downloader().fetchSmall([absent], "InRelease", 100)).toBeUndefined();
		await expect(downloader().fetchSmall([await serve(whole)], "InRelease", 100)).rejects.toThrow(
			/more than 100 bytes/,
		);
	});
});
