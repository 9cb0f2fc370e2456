import { BlockList, isIP, isIPv6 } from "node:net";
import { SandboxError } from "../errors.js";

export interface ListenAddress {
	/** An IP address or "localhost". */
	readonly host: string;
	/** 0: a free one. */
	readonly port: number;
}

export const DEFAULT_LISTEN_ADDRESS: ListenAddress = { host: "127.0.0.1", port: 0 };

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** "HOST:PORT", "[IPV6]:PORT" or "PORT". Throws SandboxError("invalid-argument"). */
export function parseListenAddress(text: string): ListenAddress {
	const [, bracketed, plain, digits = ""] = /^(?:\[([^\]]*)\]:|([^:]*):)?(\d{1,5})$/.exec(text) ?? [];
	const host = bracketed ?? plain ?? DEFAULT_LISTEN_ADDRESS.host;
	const port = Number(digits);
	const isHost = bracketed === undefined ? host === "localhost" || isIP(host) === 4 : isIPv6(host);
	if (digits === "" || port > 65_535 || !isHost) {
		throw new SandboxError(
			"invalid-argument",
			`${JSON.stringify(text.slice(0, 100))} is no address to listen on`,
			"give HOST:PORT with an IP address, such as 127.0.0.1:8086 or [::1]:8086",
		);
	}
	return { host, port };
}

export function formatListenAddress({ host, port }: ListenAddress): string {
	return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Whether nothing but this host reaches the address. */
export function isLoopback(host: string): boolean {
	if (host === "localhost") return true;
	return isIP(host) !== 0 && loopback.check(host, isIPv6(host) ? "ipv6" : "ipv4");
}
