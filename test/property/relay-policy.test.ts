import { BlockList } from "node:net";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readFirstBytes } from "../../src/relay/egress/first-bytes.js";
import { parseRule } from "../../src/relay/egress/rule.js";
import { SPECIAL_RANGES, specialRangeOf } from "../../src/relay/egress/special-ranges.js";
import { formatIpv4Address } from "../../src/relay/wire/address.js";
import { createGate, tryEverything } from "../unit/relay/egress/support.js";

const SEED = 6890;

/** An oracle that is not ours. */
const special = new BlockList();
for (const { text } of SPECIAL_RANGES) {
	const [network = "", bits = ""] = text.split(" ")[0]?.split("/") ?? [];
	special.addSubnet(network, Number(bits));
}

const anyAddress = fc.integer({ min: 0, max: 0xffffffff });
const nearSpecial = fc
	.tuple(fc.constantFrom(...SPECIAL_RANGES), fc.boolean(), fc.integer({ min: -2, max: 2 }))
	.map(([{ base, mask }, last, offset]) => ((last ? (base | ~mask) >>> 0 : base) + offset) >>> 0);
const address = fc.oneof(anyAddress, nearSpecial);
const port = fc.integer({ min: 1, max: 65_535 });

const cidr = fc
	.tuple(anyAddress, fc.integer({ min: 0, max: 32 }))
	.map(([base, bits]) => {
		const mask = bits === 0 ? 0 : (0xffffffff << (32 - bits)) >>> 0;
		return `${formatIpv4Address((base & mask) >>> 0)}/${bits}`;
	})
	.filter((text) => isAllowable(text));
const name = fc.constantFrom("a.test", "*.a.test", "b.test:443", "*");
const rules = fc.array(fc.oneof(cidr, name), { maxLength: 4 });

function isAllowable(text: string): boolean {
	try {
		createGate({ allow: [text] });
		return true;
	} catch {
		return false;
	}
}

describe("the gate", () => {
	it("by default lets exactly the addresses through that no special range holds", () => {
		const parts = createGate();
		fc.assert(
			fc.property(address, port, (target, targetPort) => {
				const isSpecial = special.check(formatIpv4Address(target));
				expect(specialRangeOf(target) !== undefined).toBe(isSpecial);
				expect(tryEverything(parts, target, targetPort)).toHaveLength(isSpecial ? 0 : 3);
			}),
			{ seed: SEED, numRuns: 1000 },
		);
	});

	it("under any rules and any DNS answers never reaches what is fixed, and says the same to the same request", () => {
		const answers = fc.array(fc.tuple(fc.constantFrom("a.test", "x.a.test", "b.test", "c.test"), address), {
			maxLength: 8,
		});
		fc.assert(
			fc.property(rules, rules, answers, address, port, (allow, deny, told, target, targetPort) => {
				const parts = createGate({ allow, deny, hostAddresses: ["198.51.100.1"] });
				for (const [answered, answeredAddress] of [...told, ["a.test", target] as const]) {
					parts.names.record(answered, answeredAddress, 60);
				}
				const reached = tryEverything(parts, target, targetPort);
				if (specialRangeOf(target)?.isFixed) expect(reached).toEqual([]);
				const verdict = parts.policy.decide({ protocol: "tcp", address: target, port: targetPort });
				expect(parts.policy.decide({ protocol: "tcp", address: target, port: targetPort })).toEqual(verdict);
				expect(reached.some((asked) => asked.startsWith("tcp"))).toBe(verdict.allowed);
				if (reached.length > 0 && allow.length > 0) {
					const byAddress = allow.some((rule) => parseRule(rule).target.kind === "addresses");
					const byName = allow.some((rule) => /^[*a]/.test(rule) || (rule.startsWith("b") && targetPort === 443));
					expect(byAddress || byName).toBe(true);
				}
			}),
			{ seed: SEED, numRuns: 1000 },
		);
	});

	it("never opens more by a --deny", () => {
		fc.assert(
			fc.property(rules, rules, address, port, (allow, deny, target, targetPort) => {
				const without = tryEverything(createGate({ allow }), target, targetPort);
				const with_ = tryEverything(createGate({ allow, deny }), target, targetPort);
				for (const asked of with_) expect(without).toContain(asked);
			}),
			{ seed: SEED, numRuns: 1000 },
		);
	});
});

describe("the first bytes of a flow", () => {
	const HTTP = Buffer.from("GET http://a.test/x HTTP/1.1\r\nAccept: */*\r\nHost: a.test\r\n\r\nbody");
	const start = fc.constantFrom(
		Buffer.alloc(0),
		HTTP.subarray(0, 20),
		Buffer.from([22, 3, 1, 0, 60, 1, 0, 0, 56, 3, 3]),
	);
	const bytes = fc.tuple(start, fc.uint8Array({ maxLength: 400 })).map((parts) => Buffer.concat(parts));

	it("are read without a throw, and once there is an answer, more bytes don't change a name", () => {
		fc.assert(
			fc.property(bytes, (input) => {
				let name: string | undefined;
				for (let end = 0; end <= input.length; end += 7) {
					const found = readFirstBytes(input.subarray(0, end));
					if (name !== undefined) expect(found).toEqual({ kind: "name", name });
					if (found.kind === "name") name = found.name;
				}
			}),
			{ seed: SEED, numRuns: 2000 },
		);
	});

	it("of a request tell the same however they arrive", () => {
		fc.assert(
			fc.property(fc.integer({ min: 1, max: HTTP.length }), (end) => {
				const found = readFirstBytes(HTTP.subarray(0, end));
				expect(found).toEqual(end < HTTP.length - 4 ? { kind: "need-more" } : { kind: "name", name: "a.test" });
			}),
			{ seed: SEED },
		);
	});
});

describe("a rule", () => {
	it("of any text is read or refused with a SandboxError", () => {
		const text = fc.oneof(fc.string(), fc.string({ unit: "binary" }), fc.stringMatching(/^[*a-c0-9.:/-]{0,20}$/));
		fc.assert(
			fc.property(text, (given) => {
				try {
					const rule = parseRule(given);
					if (rule.target.kind === "name") expect(rule.target.name).toMatch(/^[a-z0-9_.-]+$/);
				} catch (error) {
					expect(error).toMatchObject({ name: "SandboxError", code: "invalid-argument" });
				}
			}),
			{ seed: SEED, numRuns: 1000 },
		);
	});
});
