import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

/** Tests that run a machine keep two cores busy: they run one file after the other, after all the rest. */
const machineTests = { maxWorkers: 1, testTimeout: 120_000, hookTimeout: 120_000 };

/** A machine needs its process as a file, so these tests run what `npm run build` made. */
const builtModules = [
	{ find: /^\.\.\/\.\.\/src\/(.*)$/, replacement: fileURLToPath(new URL("dist/$1", import.meta.url)) },
];

export default defineConfig({
	test: {
		reporters: ["default", "./test/summary-reporter.ts"],
		projects: [
			{
				test: {
					name: "unit",
					include: ["test/unit/**/*.test.ts", "test/property/**/*.test.ts"],
					testTimeout: 30_000,
					sequence: { groupOrder: 0 },
				},
			},
			{
				test: {
					...machineTests,
					name: "network",
					include: ["test/network/**/*.test.ts"],
					globalSetup: ["test/network/build-peer.ts"],
					sequence: { groupOrder: 1 },
				},
			},
			{
				resolve: { alias: builtModules },
				test: { ...machineTests, name: "guest", include: ["test/guest/**/*.test.ts"], sequence: { groupOrder: 2 } },
			},
			{
				resolve: { alias: builtModules },
				test: {
					...machineTests,
					testTimeout: 300_000,
					name: "image",
					include: ["test/image/**/*.test.ts"],
					sequence: { groupOrder: 2 },
				},
			},
			{
				resolve: { alias: builtModules },
				test: {
					...machineTests,
					name: "base",
					include: ["test/base/**/*.test.ts"],
					globalSetup: ["test/base/build-image.ts"],
					sequence: { groupOrder: 4 },
				},
			},
			{
				test: {
					...machineTests,
					name: "mcp",
					include: ["test/mcp/**/*.test.ts"],
					globalSetup: ["test/mcp/global-setup.ts"],
					sequence: { groupOrder: 3 },
				},
			},
		],
	},
});
