import { SandboxError } from "../../../errors.js";
import type { DebianPackage, PackageIndex } from "./package-index.js";
import { type Alternatives, formatAlternatives, type Relation, satisfies } from "./relations.js";

/**
 * The packages to install for `wanted` and for every essential package: closed under Pre-Depends and Depends,
 * in the order of their names. Recommends are not followed. An alternative that is already in the set is taken first,
 * then the first one that exists, as apt does; of several providers of a virtual package the one with the highest
 * priority, then the first by name. Throws SandboxError("build-failed") that names the chain which cannot be met.
 */
export function resolvePackages(index: PackageIndex, wanted: readonly string[]): DebianPackage[] {
	const chosen = new Map<string, DebianPackage>();
	const because = new Map<string, string>();
	const queue: DebianPackage[] = [];
	const provided = new Map<string, DebianPackage[]>();

	const take = (found: DebianPackage, reason: string) => {
		if (chosen.has(found.name)) return;
		chosen.set(found.name, found);
		because.set(found.name, reason);
		for (const { name } of found.provides) provided.set(name, [...(provided.get(name) ?? []), found]);
		queue.push(found);
	};

	for (const name of wanted) {
		const found = index.get(name) ?? index.providersOf(name).sort(byPriority)[0];
		if (found === undefined) {
			throw new SandboxError("build-failed", `there is no package ${name} in the suites of the mirror`);
		}
		take(found, "it is asked for");
	}
	for (const found of index) if (found.essential) take(found, "it is essential");

	// What names one real package is settled first, so that a choice between alternatives sees most of the set.
	const postponed: { owner: DebianPackage; alternatives: Alternatives }[] = [];
	for (;;) {
		const owner = queue.shift();
		if (owner !== undefined) {
			for (const alternatives of owner.depends) {
				const only = alternatives.length === 1 ? alternatives[0] : undefined;
				const real = only && index.get(only.name);
				if (real !== undefined && satisfies(real.version, only?.constraint)) take(real, owner.name);
				else postponed.push({ owner, alternatives });
			}
			continue;
		}
		const next = postponed.shift();
		if (next === undefined) break;
		const { alternatives } = next;
		if (alternatives.some((relation) => isMet(relation, chosen, provided))) continue;
		const choice = alternatives.map((relation) => candidate(index, relation)).find((found) => found !== undefined);
		if (choice === undefined) {
			throw new SandboxError(
				"build-failed",
				`${next.owner.name} needs ${formatAlternatives(alternatives)}, which the mirror does not have` +
					` (${next.owner.name} is there because of: ${chain(next.owner.name, because)})`,
			);
		}
		take(choice, next.owner.name);
	}
	refuseConflicts([...chosen.values()], chosen, provided);
	return [...chosen.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function isMet(
	relation: Relation,
	chosen: ReadonlyMap<string, DebianPackage>,
	provided: ReadonlyMap<string, readonly DebianPackage[]>,
): boolean {
	const real = chosen.get(relation.name);
	if (real !== undefined && satisfies(real.version, relation.constraint)) return true;
	return (provided.get(relation.name) ?? []).some((provider) => providesFor(provider, relation));
}

/** Whether a Provides meets the relation: an unversioned one meets only relations without a version (Policy 7.5). */
function providesFor(provider: DebianPackage, relation: Relation): boolean {
	return provider.provides.some(
		({ name, version }) =>
			name === relation.name &&
			(relation.constraint === undefined || (version !== undefined && satisfies(version, relation.constraint))),
	);
}

function candidate(index: PackageIndex, relation: Relation): DebianPackage | undefined {
	const real = index.get(relation.name);
	if (real !== undefined && satisfies(real.version, relation.constraint)) return real;
	return index
		.providersOf(relation.name)
		.filter((provider) => providesFor(provider, relation))
		.sort(byPriority)[0];
}

const PRIORITIES = ["required", "important", "standard", "optional", "extra"];

function byPriority(a: DebianPackage, b: DebianPackage): number {
	const rank = (p: DebianPackage) => {
		const at = PRIORITIES.indexOf(p.priority);
		return at < 0 ? PRIORITIES.length : at;
	};
	return rank(a) - rank(b) || (a.name < b.name ? -1 : 1);
}

function chain(name: string, because: ReadonlyMap<string, string>): string {
	const steps: string[] = [];
	for (let at = because.get(name); at !== undefined && steps.length < 20; at = because.get(at)) steps.push(at);
	return steps.join(" ← ");
}

function refuseConflicts(
	packages: readonly DebianPackage[],
	chosen: ReadonlyMap<string, DebianPackage>,
	provided: ReadonlyMap<string, readonly DebianPackage[]>,
): void {
	for (const owner of packages) {
		for (const relation of owner.conflicts.flat()) {
			const real = chosen.get(relation.name);
			const hit =
				real !== undefined && real !== owner && satisfies(real.version, relation.constraint)
					? real
					: (provided.get(relation.name) ?? []).find((p) => p !== owner && providesFor(p, relation));
			if (hit !== undefined) {
				throw new SandboxError(
					"build-failed",
					`${owner.name} conflicts with ${formatAlternatives([relation])}, and ${hit.name} ${hit.version} is needed as well`,
				);
			}
		}
	}
}
