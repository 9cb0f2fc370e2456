/** A machine's life as one table: `created → booting|restoring → running ⇄ paused → stopped`, or `failed`. */

import { SandboxError } from "../errors.js";
import type { MachineStateName } from "./machine.js";

export type LifecycleEvent = "boot" | "restore" | "ready" | "pause" | "wake" | "fail" | "stop";

const TRANSITIONS: Record<MachineStateName, Partial<Record<LifecycleEvent, MachineStateName>>> = {
	created: { boot: "booting", restore: "restoring", stop: "stopped" },
	booting: { ready: "running", fail: "failed", stop: "stopped" },
	restoring: { ready: "running", fail: "failed", stop: "stopped" },
	running: { pause: "paused", restore: "restoring", fail: "failed", stop: "stopped" },
	paused: { wake: "running", restore: "restoring", fail: "failed", stop: "stopped" },
	failed: { boot: "booting", restore: "restoring", stop: "stopped" },
	stopped: {},
};

/** The state after `event`; throws SandboxError("internal") where the table has none. */
export function nextState(state: MachineStateName, event: LifecycleEvent): MachineStateName {
	const next = TRANSITIONS[state][event];
	if (next === undefined) throw new SandboxError("internal", `a machine that is ${state} can't ${event}`);
	return next;
}
