/**
 * Directions of import: cli > serve > server > tools > {vm, relay, image} > {errors, log}, and image > vm.
 * Whatever isn't allowed by name is a violation; test/unit/import-rules.test.ts plants some to prove it.
 */

const FOUNDATION = "^src/(errors|log|package-version|parsed|text-table)\\.ts$";

/** Modules in `from` import nothing of ours but `allowed`. */
function only(name, from, allowed) {
	return {
		name,
		severity: "error",
		from: { path: from },
		to: { path: "^src/", pathNot: [FOUNDATION, ...allowed] },
	};
}

/** The npm package `pkg` is known to `module` alone. */
function knownTo(name, module, pkg) {
	return {
		name,
		severity: "error",
		from: { path: "^src/", pathNot: module },
		to: { path: `(^|node_modules/)${pkg}(/|$)`, pathNot: "^src/" },
	};
}

module.exports = {
	forbidden: [
		{
			name: "no-circles",
			comment: "modules may share types in a circle, never values",
			severity: "error",
			from: {},
			to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
		},
		{
			name: "foundation-imports-nothing",
			severity: "error",
			from: { path: FOUNDATION },
			to: { path: "^src/" },
		},
		only("vm-stands-alone", "^src/vm/", ["^src/vm/"]),
		only("relay-stands-alone", "^src/relay/", ["^src/relay/"]),
		only("image-imports-vm-only", "^src/image/", ["^src/image/", "^src/vm/"]),
		only("tools-import-downwards", "^src/tools/", ["^src/(tools|vm|relay|image)/"]),
		only("session-imports-downwards", "^src/session\\.ts$", ["^src/(vm|relay|image)/"]),
		only("server-imports-downwards", "^src/server\\.ts$", ["^src/(session|stdio)\\.ts$", "^src/(tools|vm)/"]),
		{
			name: "server-does-not-import-upwards",
			severity: "error",
			from: { path: "^src/(server|stdio|config)\\.ts$" },
			to: { path: "^src/(cli|serve)\\.ts$" },
		},
		{
			name: "cli-is-the-top",
			severity: "error",
			from: { path: "^src/" },
			to: { path: "^src/cli\\.ts$" },
		},
		knownTo("v86-in-the-machine-process-only", "^src/vm/machine-process\\.ts$", "v86"),
		knownTo("sdk-in-the-server-only", "^src/server\\.ts$", "@modelcontextprotocol"),
		knownTo("ws-at-the-ends-of-the-wire-only", "^src/(relay/websocket|vm/network-link)", "ws"),
		{
			name: "codecs-are-pure",
			comment: "no I/O, no timers, no logging; globals are biome's business",
			severity: "error",
			from: { path: "^src/(vm/channel|relay/wire)/" },
			to: { dependencyTypes: ["core"], pathNot: "^(node:)?buffer$" },
		},
		{
			name: "codecs-know-nothing-else",
			severity: "error",
			from: { path: "^src/(vm/channel|relay/wire)/" },
			to: {
				path: "^src/",
				pathNot: "^src/(vm/channel|relay/wire)/|^src/(errors|parsed)\\.ts$|^src/relay/addresses\\.ts$",
			},
		},
		{
			name: "snapshot-format-is-pure",
			severity: "error",
			from: { path: "^src/vm/snapshot/format\\.ts$" },
			to: {
				pathNot: [
					"^(node:)?crypto$",
					"node_modules/zod/",
					"^zod",
					"^src/vm/snapshot/limits\\.ts$",
					"^src/parsed\\.ts$",
				],
			},
		},
	],
	options: {
		tsPreCompilationDeps: true,
		tsConfig: { fileName: "tsconfig.json" },
		doNotFollow: { path: "node_modules" },
		enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "node", "default", "types"] },
	},
};
