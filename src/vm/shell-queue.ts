/** The one shell's queue: commands enter in order, one at a time. */

import { SandboxError } from "../errors.js";

const MAX_WAITING = 64;

export class ShellQueue {
	#last: Promise<void> = Promise.resolve();
	#waiting = 0;

	/**
	 * Resolves when all earlier commands have left; call what it gives to leave.
	 * Throws SandboxError("busy") when the queue is full and SandboxError("cancelled") when `signal` aborts the wait.
	 */
	async enter(signal?: AbortSignal): Promise<() => void> {
		if (this.#waiting >= MAX_WAITING) {
			throw new SandboxError("busy", `${MAX_WAITING} commands wait for the shell already`, "wait for their answers");
		}
		const before = this.#last;
		let leave = () => {};
		this.#last = new Promise((resolve) => {
			leave = resolve;
		});
		this.#waiting++;
		await before;
		this.#waiting--;
		if (signal?.aborted) {
			leave();
			throw new SandboxError("cancelled", "the call was cancelled before its command started");
		}
		return leave;
	}
}
