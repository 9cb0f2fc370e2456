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
	/**
	 * Bytes of a layer's tar stream with headers and padding; of that between the data of two entries (headers of names and
	 * attributes, zeros at the end: GNU tar's largest records); attributes of one entry.
	 */
	maxLayerStreamBytes: 12 * GIB,
	maxTarGapBytes: 8 * MIB,
	maxPaxRecords: 1000,
	/** Bytes of all headers of a tar: this much, and so much more for each entry (512 is usual, 2,048 with long names and attributes). */
	tarHeaderFreeBytes: 64 * MIB,
	tarHeaderBytesPerEntry: 4 * KIB,
	/** Decompressed bytes for each compressed byte, once a stream is longer than `ratioFreeBytes`. */
	maxDecompressionRatio: 500,
	ratioFreeBytes: 64 * MIB,
	/** A path inside a tree, bytes of UTF-8; and one of its components. */
	maxPathBytes: 4095,
	maxNameBytes: 255,
	/** Symbolic links followed on the way to one entry (Linux: 40). */
	maxSymlinks: 40,
	/** Components of links followed in one tree, over all its entries; keeps a tree's making from taking hours. */
	maxLinkSteps: 50_000_000,
	/** Folders inside one another. */
	maxTreeDepth: 256,
	/** A recipe and its lock file, bytes; what a recipe may list. */
	maxRecipeBytes: 4 * MIB,
	maxLockFileBytes: 64 * MIB,
	maxRecipePackages: 2_000,
	maxRecipeCommands: 200,
	maxRecipeFiles: 1_000,
	/** One file of the host that a recipe puts into an image, bytes. */
	maxRecipeFileBytes: 1 * GIB,
	/** One command of a recipe, ms. */
	stepTimeoutMs: 60 * 60 * 1000,
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
	/** Window that a zstd frame may ask for, bytes (`zstd --ultra --long=27`). */
	maxZstdWindowBytes: 128 * MIB,
	/** Time to decode 1 MiB of zstd at most, ms (20 with the usual windows, 500 with one of 128 MiB). */
	maxZstdStepMs: 10_000,
	/** Least speed of decoding a whole stream of zstd, bytes per ms, once it has taken `zstdFreeMs`. */
	minZstdBytesPerMs: 200,
	zstdFreeMs: 30_000,
	/** Reference of a container image, characters; of them the name with its registry (distribution: 255). */
	maxReferenceChars: 512,
	maxRepositoryChars: 255,
	/** An image index or manifest, bytes (registries need not take more than 4 MiB). */
	maxManifestBytes: 4 * MIB,
	/** Configuration of a container image, bytes. */
	maxImageConfigBytes: 4 * MIB,
	/** Manifests of one image index; indices inside one another. */
	maxIndexManifests: 1000,
	maxIndexDepth: 3,
	/** Layers of a container image (overlayfs takes 128 of Docker's). */
	maxLayers: 256,
	/** All compressed layers of a container image, bytes. */
	maxImageBytes: 8 * GIB,
	/** Environment of a container image: variables, and bytes of their names and values. */
	maxEnvVariables: 256,
	maxEnvBytes: 128 * KIB,
	/** Answer of a registry's token server, bytes. */
	maxTokenAnswerBytes: 64 * KIB,
	/** Docker's config.json, bytes. */
	maxDockerConfigBytes: 1 * MIB,
	/** The first entry of an exported image, bytes. */
	maxExportHeaderBytes: 64 * KIB,
	/** A manifest.json and an fs.json of an exported image, bytes (base's have 20 KB and 1.5 MB). */
	maxImageManifestBytes: 16 * MIB,
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
