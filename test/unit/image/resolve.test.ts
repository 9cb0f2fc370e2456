import { describe, expect, it } from "vitest";
import { parseStanzas } from "../../../src/image/sources/debian/control.js";
import { PackageIndex, parsePackage } from "../../../src/image/sources/debian/package-index.js";
import { resolvePackages } from "../../../src/image/sources/debian/resolve.js";

function indexOf(text: string): PackageIndex {
	const index = new PackageIndex();
	for (const stanza of parseStanzas(text, "test")) {
		const fields = new Map([
			["version", "1"],
			["architecture", "i386"],
			["filename", "pool/x.deb"],
			["size", "1"],
			["sha256", "0".repeat(64)],
			...stanza,
		]);
		index.add(parsePackage(fields, "archive"));
	}
	return index;
}

function resolve(text: string, ...wanted: string[]): string[] {
	return resolvePackages(indexOf(text), wanted).map(({ name, version }) =>
		version === "1" ? name : `${name}=${version}`,
	);
}

describe("the resolver", () => {
	it("follows Depends and Pre-Depends, in circles too, and leaves Recommends", () => {
		const text =
			"Package: a\nDepends: b\nPre-Depends: c\nRecommends: d\n\nPackage: b\nDepends: a\n\nPackage: c\n\nPackage: d\n";
		expect(resolve(text, "a")).toEqual(["a", "b", "c"]);
	});

	it("takes essential packages unasked", () => {
		expect(resolve("Package: a\n\nPackage: sh\nEssential: yes\n", "a")).toEqual(["a", "sh"]);
	});

	it("takes the newest version of several indices", () => {
		expect(resolve("Package: a\n\nPackage: a\nVersion: 1.1\n\nPackage: a\nVersion: 0.9\n", "a")).toEqual(["a=1.1"]);
	});

	it("takes the first alternative that exists", () => {
		expect(resolve("Package: a\nDepends: gone | b | c\n\nPackage: b\n\nPackage: c\n", "a")).toEqual(["a", "b"]);
	});

	it("takes an alternative that is there anyway", () => {
		expect(
			resolve("Package: a\nDepends: b | c, d\n\nPackage: b\n\nPackage: c\n\nPackage: d\nDepends: c\n", "a"),
		).toEqual(["a", "c", "d"]);
	});

	it("passes over an alternative whose version is too old", () => {
		expect(resolve("Package: a\nDepends: b (>= 2) | c\n\nPackage: b\n\nPackage: c\n", "a")).toEqual(["a", "c"]);
	});

	it("meets a virtual package by the provider of the highest priority", () => {
		const text =
			"Package: a\nDepends: awk\n\nPackage: gawk\nProvides: awk\n\nPackage: mawk\nPriority: required\nProvides: awk\n";
		expect(resolve(text, "a")).toEqual(["a", "mawk"]);
	});

	it("meets a versioned dependency only by a versioned Provides", () => {
		const text = (provides: string) => `Package: a\nDepends: v (>= 2)\n\nPackage: b\nProvides: ${provides}\n`;
		expect(resolve(text("v (= 2.1)"), "a")).toEqual(["a", "b"]);
		expect(() => resolve(text("v"), "a")).toThrow(/a needs v \(>= 2\), which the mirror does not have/);
		expect(() => resolve(text("v (= 1)"), "a")).toThrow(/which the mirror does not have/);
	});

	it("names the chain of what cannot be met", () => {
		expect(() => resolve("Package: a\nDepends: b\n\nPackage: b\nDepends: c\n", "a")).toThrow(
			"b needs c, which the mirror does not have (b is there because of: a ← it is asked for)",
		);
	});

	it("refuses two packages that conflict", () => {
		expect(() => resolve("Package: a\nDepends: b\nBreaks: b (<< 2)\n\nPackage: b\n", "a")).toThrow(
			/a conflicts with b \(<< 2\)/,
		);
	});

	it("a package may conflict with what it provides itself", () => {
		expect(resolve("Package: a\nProvides: v\nConflicts: v\n", "a")).toEqual(["a"]);
	});

	it("says that an unknown package is unknown", () => {
		expect(() => resolve("Package: a\n", "b")).toThrow("there is no package b in the suites of the mirror");
	});

	it("refuses an index whose file names lead out of the archive", () => {
		expect(() => indexOf("Package: a\nFilename: ../../etc/passwd\n")).toThrow(/not a path below the archive/);
	});
});
