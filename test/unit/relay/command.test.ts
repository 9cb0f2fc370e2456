import { describe, expect, test } from "vitest";
import { silentLog } from "../../../src/log.js";
import { parseRelayArguments, RELAY_USAGE, runRelay } from "../../../src/relay/command.js";
import type { RelaySettings } from "../../../src/relay/settings.js";
import { TestClient } from "./websocket-client.js";

const NO_SETTINGS: RelaySettings = { allow: [], deny: [], hostPort: [], dns: [] };

function run(args: readonly string[], settings: Partial<RelaySettings> = {}) {
	const ending = new AbortController();
	let text = "";
	let printed: (text: string) => void = () => {};
	const firstText = new Promise<string>((resolve) => {
		printed = resolve;
	});
	const stdout = {
		write(part: string) {
			text += part;
			printed(text);
		},
	};
	const done = runRelay(args, {
		settings: { ...NO_SETTINGS, ...settings },
		log: silentLog,
		stdout,
		signal: ending.signal,
	});
	return { done, firstText, end: () => ending.abort() };
}

describe("sandbox86 relay", () => {
	test("prints the URL that lets a machine in, and what it may reach; ends by the signal", async () => {
		const { done, firstText, end } = run([]);
		const lines = (await firstText).split("\n");
		expect(lines[0]).toMatch(/^relay_url: ws:\/\/127\.0\.0\.1:\d+\/[\w-]{43}$/);
		expect(lines.slice(1)).toEqual([
			"",
			"Whoever has this URL has this host's network, as far as the rules let out:",
			"  open: every public address; nothing of this host, its network or any special range",
			"  names: as this host resolves them",
			"Ctrl-C ends the relay.",
			"",
		]);
		const client = await TestClient.connect((lines[0] ?? "").slice("relay_url: ".length));
		end();
		expect(await done).toBe(0);
		expect((await client.ended).code).toBe(1001);
	});

	test("says every rule in words", async () => {
		const { done, firstText, end } = run(["--listen", "[::1]:0"], {
			allow: ["*.example.org:443", "192.168.7.0/24"],
			deny: ["bad.example.org"],
			hostPort: ["8080"],
			dns: ["192.0.2.53"],
		});
		const text = await firstText;
		end();
		await done;
		expect(text).toMatch(/^relay_url: ws:\/\/\[::1\]:\d+\//);
		expect(text.split("\n").slice(3, 7)).toEqual([
			"  open: *.example.org:443, 192.168.7.0/24; nothing else",
			"  closed all the same: bad.example.org",
			"  10.0.2.2:8080 is this host's localhost:8080",
			"  names: asked of 192.0.2.53:53",
		]);
	});

	test("explains itself", async () => {
		const { done, firstText } = run(["--help"]);
		expect(await firstText).toBe(RELAY_USAGE);
		expect(await done).toBe(0);
	});

	test.each([
		[["--listen", "example.org:80"], '"example.org:80" is no address to listen on'],
		[["--listen", "127.0.0.1:65536"], '"127.0.0.1:65536" is no address to listen on'],
		[["--mtu", "100"], '--mtu is "100", but a whole number from 576 to 65535 is needed'],
		[["--machines", "1e3"], '--machines is "1e3", but a whole number from 1 to 4096 is needed'],
		[["--origin", "example.org"], '--origin is "example.org", but an origin such as https://example.org is needed'],
		[["--origin", "https://a.example/x"], "--origin is"],
		[["--joined"], "Unknown option '--joined'"],
		[["more"], "Unexpected argument 'more'"],
	])("refuses %j", async (args, message) => {
		await expect(run(args).done).rejects.toMatchObject({
			code: "invalid-argument",
			message: expect.stringContaining(message),
		});
	});

	test("reads all its options", () => {
		expect(
			parseRelayArguments([
				"--listen=0.0.0.0:8086",
				"--origin=https://A.example",
				"--origin=*",
				"--shared",
				"--machines=2",
				"--mtu=9000",
				"--pcap-size=2",
			]),
		).toEqual({
			listen: { host: "0.0.0.0", port: 8086 },
			origins: ["https://a.example", "*"],
			shared: true,
			maxMachines: 2,
			mtu: 9000,
			pcapMaxBytes: 2_097_152,
		});
	});

	test("refuses to open its own port to machines", async () => {
		const first = run([]);
		const port = /:(\d+)\//.exec(await first.firstText)?.[1] ?? "";
		first.end();
		await first.done;
		await expect(run(["--listen", port], { hostPort: [port] }).done).rejects.toMatchObject({
			code: "invalid-argument",
			message: expect.stringContaining("the relay's own port"),
		});
	});
});
