/** A module of the built package, as users have it; the machine process is found beside it. */
export async function built<T>(module: string): Promise<T> {
	return (await import(new URL(`../../dist/${module}`, import.meta.url).href)) as T;
}
