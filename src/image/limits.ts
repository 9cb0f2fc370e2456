/** Every bound of the image builder, with its unit. Nothing that a mirror, an archive or a guest says can grow past them. */

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

export const limits = {
	/** An InRelease file, bytes (trixie's has 140 KB). */
	maxReleaseBytes: 4 * MIB,
	/** A decompressed package index, bytes (trixie's main i386 has 55 MB). */
	maxPackagesBytes: 512 * MIB,
	/** Packages of one index (trixie's main i386 has 66,000 at most). */
	maxPackages: 500_000,
	/** One stanza of a control file, characters. */
	maxStanzaChars: 1 * MIB,
	/** Entries of one tar layer, or of one tree. */
	maxTreeEntries: 1_000_000,
	/** Bytes of all files of one tar layer. */
	maxLayerBytes: 8 * GIB,
	/** Decompressed bytes for each compressed byte, once a stream is longer than `ratioFreeBytes`. */
	maxDecompressionRatio: 500,
	ratioFreeBytes: 64 * MIB,
	/** A path inside a tree, bytes of UTF-8; and one of its components. */
	maxPathBytes: 4095,
	maxNameBytes: 255,
	/** Symbolic links followed on the way to one entry (Linux: 40). */
	maxSymlinks: 40,
	/** A control.tar's maintainer scripts and lists, bytes in all. */
	maxControlBytes: 64 * MIB,
	/** No byte for this long and the server counts as stalled, ms. */
	downloadStallMs: 15_000,
	/** Whole rounds over all mirrors before a download fails. */
	downloadRounds: 4,
	/** Pause before the second, third … round, ms; doubled each time. */
	downloadRetryMs: 250,
	/** Downloads at once. */
	parallelDownloads: 8,
	/** HTTP redirects followed for one download. */
	maxRedirects: 5,
	/** The first entry of an exported image, bytes. */
	maxExportHeaderBytes: 64 * KIB,
	/** A manifest.json and an fs.json of an exported image, bytes (base's have 20 KB and 1.5 MB). */
	maxManifestBytes: 16 * MIB,
	maxTreeJsonBytes: 256 * MIB,
	/** Bytes of all different files of an exported image. */
	maxExportedBytes: 64 * GIB,
	/** Boot snapshots of one image: there is one for each memory size that was used. */
	maxBootSnapshots: 16,
	/** Zeros at the end of an exported image, bytes (GNU tar writes up to 10,240). */
	maxTarTailBytes: 64 * KIB,
	/** Scopes of one node_modules folder that are searched for an image's package, and bytes of its package.json. */
	maxPackageScopes: 1000,
	maxPackageJsonBytes: 1 * MIB,
} as const;
