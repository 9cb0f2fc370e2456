import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { exportImage } from "../../src/image/export.js";
import { importImage } from "../../src/image/import.js";
import { verifyImage } from "../../src/image/store.js";
import { silentLog } from "../../src/log.js";
import { commitFixture, everythingIn } from "../unit/image/image-fixture.js";
import { CLI } from "./support.js";

const log = silentLog;

let folder: string;
beforeEach(() => {
	folder = mkdtempSync(join(tmpdir(), "sandbox86-import-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

it("an import that is killed leaves no image and no content, and the next one clears up and succeeds", async () => {
	const [here, there] = [join(folder, "here"), join(folder, "there")];
	const file = join(folder, "demo.tar.gz");
	const files = Array.from({ length: 3000 }, (_, n) => [`d/${n}`, randomBytes(2000)] as const);
	await commitFixture(here, "demo", Object.fromEntries(files));
	await exportImage(here, "demo", file, { log });

	const child = spawn(process.execPath, [CLI, "image", "import", file, "--home", there], { stdio: "ignore" });
	const ended = once(child, "exit");
	const staged = () => everythingIn(join(there, "builds")).filter((path) => /files[/\\][0-9a-f]{64}$/.test(path));
	await vi.waitFor(() => expect(staged().length).toBeGreaterThan(10), { timeout: 30_000, interval: 5 });
	child.kill("SIGKILL");
	expect(await ended).toEqual([null, "SIGKILL"]);
	expect(everythingIn(join(there, "images"))).toEqual([]);
	expect(everythingIn(join(there, "files"))).toEqual([]);

	expect(await importImage(there, file, { log })).toMatchObject({ outcome: "new", files: 3000 });
	expect(everythingIn(join(there, "builds"))).toEqual([]);
	expect(await verifyImage(there, "demo")).toEqual([]);
});
