import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { CLI, newHome, removeHome, serverArgs } from "./support.js";

const root = resolve(import.meta.dirname, "../..");
const packageJson = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };

let home: string;
beforeAll(() => {
	home = newHome(inject("templateHome"));
});
afterAll(() => removeHome(home));

function run(args: string[], env: Record<string, string> = {}) {
	return spawnSync(process.execPath, [CLI, ...args], { encoding: "utf8", input: "", env: { ...process.env, ...env } });
}

describe("the command line", () => {
	it("shows its help and version", () => {
		expect(run(["--help"])).toMatchObject({
			status: 0,
			stderr: "",
			stdout: expect.stringContaining("SANDBOX86_MEMORY_MIB"),
		});
		expect(run(["--version"])).toMatchObject({ status: 0, stderr: "", stdout: `${packageJson.version}\n` });
	});

	it.each([
		[["--memory", "lots"], {}, '--memory is "lots", but a whole number of MiB from 72 to 2047 is needed'],
		[["--bogus"], {}, "unknown option --bogus"],
		[[], { SANDBOX86_TIMEOUT_MS: "-1" }, 'SANDBOX86_TIMEOUT_MS is "-1"'],
	])("ends with exit code 2 and a clear line on stderr: %j %j", (args, env, message) => {
		const { status, stdout, stderr } = run(args, env);
		expect(stdout).toBe("");
		expect(stderr).toContain(message);
		expect(stderr).toContain("sandbox86 --help");
		expect(status).toBe(2);
	});

	it.each([
		[["--network", "wat"], '--network is "wat", but one of relay, fetch, none is needed'],
		[["--network", "none", "--allow", "example.org"], "--allow is of no effect with --network none"],
		[["--network", "fetch", "--pcap", "frames.pcap"], "--pcap is of no effect with --network fetch"],
		[["--allow", "exa mple.org"], 'the rule "exa mple.org" can\'t be read: "exa mple.org" is not a host name'],
		[["--allow", "256.1.1.1"], '"256.1.1.1" is not an IPv4 address'],
		[["--deny", "10.0.0.1/8"], "its network of 8 bits begins at 10.0.0.0"],
		[["--host-port", "0"], '"0" is not a port'],
		[["--forward", "8080"], '--forward is "8080", but HOST:GUEST is needed'],
		[["--dns", "dns.example.org"], '"dns.example.org" is not the address of a DNS server'],
		[["relay", "--mtu", "9"], '--mtu is "9", but a whole number from 576 to 65535 is needed'],
	])("ends with exit code 2 and says which network option is wrong: %j", (args, message) => {
		const { status, stdout, stderr } = run(["--home", home, ...args]);
		expect(stdout).toBe("");
		expect(stderr).toContain(message);
		expect(status).toBe(2);
	});

	it("says which port of a forward is taken", async () => {
		const server = createServer().listen(0, "127.0.0.1");
		await once(server, "listening");
		const { port } = server.address() as AddressInfo;
		const { status, stdout, stderr } = run(["--home", home, "--forward", `${port}:80`]);
		server.close();
		expect(stdout).toBe("");
		expect(stderr).toContain(`--forward can't have TCP port ${port} of 127.0.0.1 (EADDRINUSE)`);
		expect(stderr).toContain("choose another port of the host");
		expect(status).not.toBe(0);
	});

	it("says what is wrong with a data folder that can't be made", () => {
		const { status, stdout, stderr } = run(["--home", "/etc/passwd/here"]);
		expect(stdout).toBe("");
		expect(stderr).toMatch(/\/etc\/passwd\/here can't be made: ENOTDIR/);
		expect(status).toBe(2);
	});
});

describe("the Inspector's command line", () => {
	function inspect(args: string[]): unknown {
		const inspector = join(root, "node_modules/.bin/mcp-inspector-cli");
		const { status, stdout, stderr } = spawnSync(
			process.execPath,
			[inspector, "--cli", process.execPath, ...serverArgs({ home }), ...args],
			{ encoding: "utf8", timeout: 60_000 },
		);
		if (status !== 0) throw new Error(`the Inspector ended with ${status}: ${stdout}${stderr}`);
		return JSON.parse(stdout);
	}

	it("lists the tools", () => {
		expect(inspect(["--method", "tools/list"])).toMatchObject({
			tools: [{ name: "bash" }, {}, {}, {}, {}, { name: "forward_port" }],
		});
	});

	it("calls a tool", () => {
		const call = ["--method", "tools/call", "--tool-name", "bash", "--tool-arg", "command=echo from the guest"];
		expect(inspect(call)).toMatchObject({ structuredContent: { stdout: "from the guest\n", exit_code: 0 } });
	});
});
