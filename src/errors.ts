/** What went wrong, in a form a caller can act on: a stable code, one sentence, and the next step. */

export type ErrorCode =
	| "invalid-argument" // the caller's input breaks a rule; the message names the rule and the value
	| "not-found" // a file, snapshot or image that does not exist
	| "already-exists" // a name that is taken
	| "busy" // somebody else holds it; wait or retry
	| "corrupt" // bytes on disk or from the network that fail their check
	| "mismatch" // a snapshot of another image, memory size or emulator version
	| "no-space" // the disk or the guest's file system is full
	| "image-missing" // the image is not built yet
	| "image-building" // the image is being built; the message gives progress
	| "build-failed" // an image could not be built
	| "network" // a mirror or server that is down, slow or lying
	| "timeout" // no answer within the bound that the message names
	| "cancelled" // the caller gave up
	| "machine-failed" // the guest or its process died; the message says why
	| "guest-file" // the guest refused a file operation (errno in the message)
	| "internal"; // a defect of ours

export class SandboxError extends Error {
	readonly code: ErrorCode;
	/** What the caller can do next, as a full sentence; undefined if nothing helps. */
	readonly hint: string | undefined;

	constructor(code: ErrorCode, message: string, hint?: string, options?: ErrorOptions) {
		super(message, options);
		this.name = "SandboxError";
		this.code = code;
		this.hint = hint;
	}
}

/** One line for a person: the message, then the hint. */
export function describeError(error: unknown): string {
	if (error instanceof SandboxError) {
		return error.hint === undefined ? error.message : `${error.message} (hint: ${error.hint})`;
	}
	return error instanceof Error ? error.message : String(error);
}

/** The errno name ("ENOENT") of a failed system call, or undefined. */
export function errnoOf(error: unknown): string | undefined {
	if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
	return undefined;
}
