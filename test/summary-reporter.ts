/** Ends the output with one line that a program can read: "N passed, N failed". */

import type { Reporter, TestModule } from "vitest/node";

export default class SummaryReporter implements Reporter {
	onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
		const counts = { passed: 0, failed: errors.length, skipped: 0 };
		for (const module of modules) {
			// A file that could not be loaded has no tests to count.
			if (module.state() === "failed" && module.errors().length > 0) counts.failed++;
			for (const test of module.children.allTests()) {
				const { state } = test.result();
				if (state !== "pending") counts[state]++;
			}
		}
		const skipped = counts.skipped === 0 ? "" : `, ${counts.skipped} skipped`;
		process.stdout.write(`${counts.passed} passed, ${counts.failed} failed${skipped}\n`);
	}
}
