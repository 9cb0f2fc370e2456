import { defineConfig } from "vitest/config";

/** Tests that run a machine keep two cores busy: they run one file after the other, after all the rest. */
const machineTests = { maxWorkers: 1, testTimeout: 120_000, hookTimeout: 120_000 };

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
			{ test: { ...machineTests, name: "guest", include: ["test/guest/**/*.test.ts"], sequence: { groupOrder: 1 } } },
			{ test: { ...machineTests, name: "mcp", include: ["test/mcp/**/*.test.ts"], sequence: { groupOrder: 2 } } },
		],
	},
});
