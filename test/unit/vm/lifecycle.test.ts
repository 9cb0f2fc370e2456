import { describe, expect, it } from "vitest";
import { type LifecycleEvent, nextState } from "../../../src/vm/lifecycle.js";
import type { MachineStateName } from "../../../src/vm/machine.js";

describe("a machine's life", () => {
	it.each<[MachineStateName, LifecycleEvent, MachineStateName]>([
		["created", "boot", "booting"],
		["created", "restore", "restoring"],
		["booting", "ready", "running"],
		["running", "pause", "paused"],
		["paused", "wake", "running"],
		["running", "fail", "failed"],
		["failed", "boot", "booting"],
		["failed", "restore", "restoring"],
		["paused", "stop", "stopped"],
	])("goes from %s by %s to %s", (from, event, to) => {
		expect(nextState(from, event)).toBe(to);
	});

	it.each<[MachineStateName, LifecycleEvent]>([
		["created", "pause"],
		["booting", "pause"],
		["stopped", "boot"],
		["paused", "pause"],
	])("has no way from %s by %s", (from, event) => {
		expect(() => nextState(from, event)).toThrow(`a machine that is ${from} can't ${event}`);
	});
});
