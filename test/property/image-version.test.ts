import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareVersions, parseVersion } from "../../src/image/sources/debian/version.js";

const part = fc.stringMatching(/^[0-9][0-9a-zA-Z.+~]{0,8}$/);
const version = fc
	.tuple(fc.option(fc.nat(9)), part, fc.option(fc.stringMatching(/^[0-9a-z.+~]{1,6}$/)))
	.map(
		([epoch, upstream, revision]) =>
			`${epoch === null ? "" : `${epoch}:`}${upstream}${revision === null ? "" : `-${revision}`}`,
	);

describe("Debian versions are totally ordered", () => {
	it("a version equals itself", () => {
		fc.assert(fc.property(version, (a) => compareVersions(a, a) === 0));
	});

	it("comparing the other way round gives the opposite", () => {
		fc.assert(
			fc.property(version, version, (a, b) => Math.sign(compareVersions(a, b)) === -Math.sign(compareVersions(b, a))),
		);
	});

	it("the order is transitive", () => {
		fc.assert(
			fc.property(version, version, version, (a, b, c) => {
				const sorted = [a, b, c].sort(compareVersions);
				expect(compareVersions(sorted[0] ?? "", sorted[2] ?? "")).toBeLessThanOrEqual(0);
			}),
			{ numRuns: 1000 },
		);
	});

	it("a tilde makes a version older, any other suffix newer or equal", () => {
		fc.assert(fc.property(part, (a) => compareVersions(`${a}~x`, a) < 0 && compareVersions(`${a}+x`, a) > 0));
	});

	it("an epoch outweighs everything", () => {
		fc.assert(fc.property(part, part, (a, b) => compareVersions(`1:${a}`, b) > 0));
	});

	it("any text is either parsed or refused, and can be compared", () => {
		fc.assert(
			fc.property(fc.string(), fc.string(), (a, b) => {
				parseVersion(a);
				expect(Number.isNaN(compareVersions(a, b))).toBe(false);
			}),
		);
	});
});
