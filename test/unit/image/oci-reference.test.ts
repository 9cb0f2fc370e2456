import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SandboxError } from "../../../src/errors.js";
import { parseChallenges } from "../../../src/image/sources/oci/challenge.js";
import { formatReference, isLoopback, parseReference, registryUrl } from "../../../src/image/sources/oci/reference.js";

const HEX = "0123456789abcdef".repeat(4);

describe("a reference", () => {
	it.each([
		["alpine", "docker.io/library/alpine:latest", "https://registry-1.docker.io"],
		["alpine:3.21", "docker.io/library/alpine:3.21", "https://registry-1.docker.io"],
		["i386/debian:trixie", "docker.io/i386/debian:trixie", "https://registry-1.docker.io"],
		["docker.io/alpine", "docker.io/library/alpine:latest", "https://registry-1.docker.io"],
		["index.docker.io/i386/alpine", "docker.io/i386/alpine:latest", "https://registry-1.docker.io"],
		[`alpine@sha256:${HEX}`, `docker.io/library/alpine@sha256:${HEX}`, "https://registry-1.docker.io"],
		[`ghcr.io/o/n@sha256:${HEX}`, `ghcr.io/o/n@sha256:${HEX}`, "https://ghcr.io"],
		[`ghcr.io/o/n:1@sha256:${HEX}`, `ghcr.io/o/n:1@sha256:${HEX}`, "https://ghcr.io"],
		["quay.io:8443/a/b/c-d__e.f:T_1.x-y", "quay.io:8443/a/b/c-d__e.f:T_1.x-y", "https://quay.io:8443"],
		["localhost/x", "localhost/x:latest", "http://localhost"],
		["localhost:5000/x:tag", "localhost:5000/x:tag", "http://localhost:5000"],
		["127.0.0.1:5000/x", "127.0.0.1:5000/x:latest", "http://127.0.0.1:5000"],
		["[::1]:5000/x", "[::1]:5000/x:latest", "http://[::1]:5000"],
		["10.0.0.1:5000/x", "10.0.0.1:5000/x:latest", "https://10.0.0.1:5000"],
		["Registry/x", "Registry/x:latest", "https://registry"],
	])("%s is %s", (text, full, url) => {
		const reference = parseReference(text);
		expect(formatReference(reference)).toBe(full);
		expect(registryUrl(reference.registry)).toBe(url);
	});

	it.each([
		["", "it is empty"],
		["Alpine", '"Alpine" is no part of a name'],
		["a//b", '"" is no part of a name'],
		["a/../b", '".." is no part of a name'],
		["a b", '"a b" is no part of a name'],
		["alpine:", '"" is no tag'],
		["alpine:-x", '"-x" is no tag'],
		[`alpine:${"x".repeat(129)}`, "is no tag"],
		["alpine@", '"" is no digest'],
		["alpine@sha256:123", '"sha256:123" is no digest'],
		[`alpine@sha512:${HEX}${HEX}`, `the digest sha512:${HEX}${HEX} is not "sha256:" and 64 digits of 0-9 a-f`],
		[`alpine@sha256:${HEX.toUpperCase()}`, 'is not "sha256:" and 64 digits of 0-9 a-f'],
		[HEX, "64 hexadecimal digits are an image's id, not its name"],
		["localhost:123456/x", '"localhost:123456" is no registry'],
		["localhost:70000/x", '"localhost:70000" is no registry'],
		["user@host.example/x", '"host.example/x" is no digest'],
		["-a.example/x", '"-a.example" is no registry'],
		["ghcr.io/", '"" is no part of a name'],
		[`${"x/".repeat(127)}xx`, "its name has 256 characters, 255 are allowed"],
		["x".repeat(513), "it has 513 characters, 512 are allowed"],
	])("%j is refused: %s", (text, reason) => {
		expect(() => parseReference(text)).toThrow(reason);
	});

	it("means the same when it is written in full, and any other text is refused", () => {
		const anything = fc.oneof(
			fc.string({ maxLength: 600 }),
			fc.stringMatching(/^[a-zA-Z0-9.:/@_[\]-]{0,60}$/),
			fc.stringMatching(/^([a-z]{1,5}(\.[a-z]{2})?(:[0-9]{1,4})?\/)?[a-z0-9]{1,6}([._-][a-z0-9]{1,3})?(:\w{1,5})?$/),
		);
		fc.assert(
			fc.property(anything, (text) => {
				try {
					const reference = parseReference(text);
					expect(parseReference(formatReference(reference))).toEqual(reference);
					expect(() => new URL(registryUrl(reference.registry))).not.toThrow();
				} catch (error) {
					expect(error).toBeInstanceOf(SandboxError);
				}
			}),
			{ numRuns: 2000 },
		);
	});

	it("only this host's addresses may be asked without TLS", () => {
		const loopback = ["http://localhost:1", "http://127.255.0.9", "http://[::1]:5000", "http://127.1"];
		const others = [
			"http://localhost.example",
			"http://128.0.0.1",
			"http://127.0.0.1.example",
			"http://[::2]",
			"http://0.0.0.0",
		];
		expect(loopback.filter((url) => !isLoopback(new URL(url)))).toEqual([]);
		expect(others.filter((url) => isLoopback(new URL(url)))).toEqual([]);
	});
});

describe("the header WWW-Authenticate", () => {
	const read = (header: string) =>
		parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);

	it.each([
		["", []],
		['Basic realm="a registry"', [["basic", { realm: "a registry" }]]],
		[
			'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"',
			[
				[
					"bearer",
					{ realm: "https://auth.example/token", service: "registry.example", scope: "repository:a/b:pull,push" },
				],
			],
		],
		[
			'Negotiate, Basic realm=x , BEARER Realm = "a\\"b"',
			[
				["negotiate", {}],
				["basic", { realm: "x" }],
				["bearer", { realm: 'a"b' }],
			],
		],
		['Bearer realm="never ends', [["bearer", {}]]],
	])("%s", (header, challenges) => {
		expect(read(header)).toEqual(challenges);
	});

	it("is read to its end or to what cannot be read, whatever it holds", () => {
		fc.assert(
			fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[A-Za-z=", \\]{0,60}$/)), (header) => {
				expect(Array.isArray(parseChallenges(header))).toBe(true);
			}),
			{ numRuns: 2000 },
		);
	});
});
