// Debian Policy 7.1: "a (>= 1) [i386] <!nocheck> | b, c"

import { SandboxError } from "../../../errors.js";
import { compareVersions } from "./version.js";

export type RelationOperator = "<<" | "<=" | "=" | ">=" | ">>";

export interface Relation {
	readonly name: string;
	/** The part after the colon of "python3:any", else undefined. */
	readonly architecture: string | undefined;
	readonly constraint: { readonly operator: RelationOperator; readonly version: string } | undefined;
}

/** One of them must hold. */
export type Alternatives = readonly Relation[];

const RELATION = /^([a-z0-9][a-z0-9+.-]*)(?::([a-z0-9-]+))?\s*(?:\(\s*(<<|<=|=|>=|>>|<|>)\s*([^\s)]+)\s*\))?$/;

/** Parses a Depends, Provides or Conflicts field. */
export function parseRelations(field: string | undefined, source: string): Alternatives[] {
	if (field === undefined || field.trim() === "") return [];
	return field
		.split(",")
		.map((clause) => clause.trim())
		.filter((clause) => clause !== "")
		.map((clause) => clause.split("|").map((text) => parseRelation(text.trim(), source)));
}

function parseRelation(text: string, source: string): Relation {
	const match = RELATION.exec(text);
	const name = match?.[1];
	if (match === null || name === undefined) {
		throw new SandboxError("corrupt", `${source}: not a package relation: ${JSON.stringify(text.slice(0, 80))}`);
	}
	const operator = match[3];
	const version = match[4];
	const constraint =
		operator === undefined || version === undefined ? undefined : { operator: normalize(operator), version };
	return { name, architecture: match[2], constraint };
}

/** "<" and ">" mean "<=" and ">=" (Policy 7.1, deprecated forms). */
function normalize(operator: string): RelationOperator {
	switch (operator) {
		case "<":
			return "<=";
		case ">":
			return ">=";
		case "<<":
		case "<=":
		case ">=":
		case ">>":
			return operator;
		default:
			return "=";
	}
}

/** Whether `version` meets the relation's constraint. */
export function satisfies(version: string, constraint: Relation["constraint"]): boolean {
	if (constraint === undefined) return true;
	const order = compareVersions(version, constraint.version);
	switch (constraint.operator) {
		case "<<":
			return order < 0;
		case "<=":
			return order <= 0;
		case "=":
			return order === 0;
		case ">=":
			return order >= 0;
		case ">>":
			return order > 0;
	}
}

/** The relation as Debian writes it. */
export function formatAlternatives(alternatives: Alternatives): string {
	return alternatives
		.map((r) => (r.constraint ? `${r.name} (${r.constraint.operator} ${r.constraint.version})` : r.name))
		.join(" | ");
}
