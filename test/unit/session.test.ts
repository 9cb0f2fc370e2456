import { describe, expect, it } from "vitest";
import { SandboxError } from "../../src/errors.js";
import { silentLog } from "../../src/log.js";
import { type BuildProgress, Session } from "../../src/session.js";
import type { Machine } from "../../src/vm/machine.js";
import type { MachineImage } from "../../src/vm/machine-image.js";

const image = { name: "base" } as MachineImage;
const machine = { stop: async () => {} } as Machine;
const patient = { signal: new AbortController().signal, progress: undefined };

/** A session whose image is missing; its build is in the test's hands. */
function building(maxWaitMs: number) {
	const builds: {
		finish: (image: MachineImage) => void;
		fail: (error: Error) => void;
		signal: AbortSignal;
		onProgress: (progress: BuildProgress) => void;
	}[] = [];
	const session = new Session({
		images: {
			name: "base",
			load: async () => {
				throw new SandboxError("image-missing", "the image base is not built yet");
			},
			build: ({ signal, onProgress }) =>
				new Promise((finish, fail) => {
					builds.push({ finish, fail, signal, onProgress });
				}),
		},
		createMachine: () => machine,
		log: silentLog,
		maxWaitMs,
	});
	return { session, builds };
}

describe("a session whose image is missing", () => {
	it("builds it once for all who ask", async () => {
		const { session, builds } = building(10_000);
		const both = Promise.all([session.machine(patient), session.machine(patient)]);
		await expect.poll(() => builds.length).toBe(1);
		builds[0]?.finish(image);
		expect(await both).toEqual([machine, machine]);
		expect(await session.machine(patient)).toBe(machine);
		expect(builds).toHaveLength(1);
	});

	it("answers in time with percentage, time left and what to do, and the next call waits for the same build", async () => {
		const { session, builds } = building(50);
		const first = session.machine(patient);
		await expect.poll(() => builds.length).toBe(1);
		builds[0]?.onProgress({ stage: "downloading packages", fraction: 0.427, etaMs: 93_000 });
		await expect(first).rejects.toMatchObject({
			code: "image-building",
			message: expect.stringMatching(
				/image base is being built: 42 % after 0 s, about 93 s left \(downloading packages\)/,
			),
			hint: expect.stringContaining("make the same call again"),
		});
		const second = session.machine(patient);
		builds[0]?.finish(image);
		expect(await second).toBe(machine);
		expect(builds).toHaveLength(1);
	});

	it("reports progress to those who listen", async () => {
		const { session, builds } = building(10_000);
		const heard: string[] = [];
		const waiting = session.machine({ ...patient, progress: async (message) => void heard.push(message) });
		await expect.poll(() => heard.length, { timeout: 3000 }).toBeGreaterThan(0);
		expect(heard[0]).toMatch(/^image base is being built: 0 %/);
		builds[0]?.finish(image);
		await waiting;
	});

	it("lets a cancelled caller go while the build goes on", async () => {
		const { session, builds } = building(10_000);
		const cancel = new AbortController();
		const waiting = session.machine({ ...patient, signal: cancel.signal });
		cancel.abort();
		await expect(waiting).rejects.toMatchObject({ code: "cancelled" });
		await expect.poll(() => builds.length).toBe(1);
		expect(builds[0]?.signal.aborted).toBe(false);
	});

	it("tells a failure to those who wait, and tries again at the next call", async () => {
		const { session, builds } = building(10_000);
		const waiting = session.machine(patient);
		await expect.poll(() => builds.length).toBe(1);
		builds[0]?.fail(new SandboxError("network", "no mirror answers"));
		await expect(waiting).rejects.toMatchObject({ code: "network" });
		const again = session.machine(patient);
		await expect.poll(() => builds.length).toBe(2);
		builds[1]?.finish(image);
		expect(await again).toBe(machine);
	});

	it("tells a failure that nobody waited for to the next caller", async () => {
		const { session, builds } = building(20);
		await expect(session.machine(patient)).rejects.toMatchObject({ code: "image-building" });
		builds[0]?.fail(new SandboxError("no-space", "the disk is full"));
		await new Promise((resolve) => setTimeout(resolve, 10));
		await expect(session.machine(patient)).rejects.toMatchObject({ code: "no-space" });
		const again = session.machine(patient);
		await expect.poll(() => builds.length).toBe(2);
		builds[1]?.finish(image);
		expect(await again).toBe(machine);
	});

	it("stops the build when the server ends", async () => {
		const { session, builds } = building(10_000);
		const waiting = session.machine(patient).catch((error: unknown) => error);
		await expect.poll(() => builds.length).toBe(1);
		builds[0]?.signal.addEventListener("abort", () => builds[0]?.fail(new SandboxError("cancelled", "stopped")));
		await session.stop();
		expect(await waiting).toMatchObject({ code: "cancelled" });
		await expect(session.machine(patient)).rejects.toMatchObject({ code: "cancelled" });
	});
});
