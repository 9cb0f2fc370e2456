/** Every bound of a snapshot file, with its unit. */

const KIB = 1024;
const MIB = 1024 * KIB;

export const limits = {
	/** A header, bytes of JSON; checked before a byte of it is decoded. */
	maxHeaderBytes: 512 * KIB,
	/** A state, bytes: the most memory that a machine can have (2 GiB), and room for its devices. */
	maxStateBytes: 2304 * MIB,
	/** Connections that a snapshot remembers. */
	maxOpenFlows: 4096,
	/** A snapshot's name, characters. */
	maxNameChars: 64,
	/** A snapshot's description, characters. */
	maxDescriptionChars: 1000,
	/** One read from a snapshot file, bytes. */
	readChunkBytes: MIB,
	/** A temporary file of a dead process is left alone until nothing was written to it for this long, ms. */
	staleTempMs: 10_000,
} as const;
