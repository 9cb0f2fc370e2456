/** Every bound of the tools, with its unit. */

const KIB = 1024;
const MIB = 1024 * KIB;

export const limits = {
	/** A command, bytes. */
	maxCommandBytes: MIB,
	/** A path, bytes. */
	maxPathBytes: 4095,
	/** Longest time that a caller may give a command, ms. */
	maxTimeoutMs: 600_000,
	/** Output kept for each stream of a command, bytes: the first and the last half of it. */
	maxOutputBytes: 32 * KIB,
	/** One read or write of a file, bytes. */
	maxFileBytes: 16 * MIB,
	/** A read that names no limit, bytes. */
	defaultReadBytes: 64 * KIB,
	/** Content that is repeated in the text part of an answer, characters; more stands in structuredContent alone. */
	maxTextChars: 256 * KIB,
	/** Time between two progress notifications of one call, ms. */
	progressIntervalMs: 100,
	/** A command that prints nothing is reported as running this often, ms. */
	heartbeatMs: 5_000,
	/** Text of one progress notification, bytes of output. */
	maxProgressBytes: 4 * KIB,
	/** Wrong fields that one error lists. */
	maxIssues: 5,
} as const;
