import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { connect, type LookupFunction, type Socket } from "node:net";
import { type PingOutcome, ping } from "./ping.js";

/** Everything by which the relay reaches out for a guest. The gate is its only caller. */
export interface HostSockets {
	/** A socket that is connecting to this very address; both ends may close on their own. Nothing is resolved. */
	connectTcp(address: string, port: number): Socket;
	/** The same to the host's localhost: 127.0.0.1, or ::1 if nobody listens there. */
	connectLocalhost(port: number): Socket;
	/** A UDP socket on a port that the system chooses. Sending through it resolves nothing. */
	bindUdp(): UdpSocket;
	/** A UDP socket that is connected to 127.0.0.1:`port`, so that it learns if nobody listens there: "error" with ECONNREFUSED. */
	connectLocalUdp(port: number): UdpSocket;
	/** One echo request, by the host's own means. */
	ping(address: string): Promise<PingOutcome>;
}

/** For `net`, which asks for all addresses when it may try several. */
const localhost: LookupFunction = (_name, options, callback) => {
	if (options.all) {
		callback(null, [
			{ address: "127.0.0.1", family: 4 },
			{ address: "::1", family: 6 },
		]);
	} else {
		callback(null, "127.0.0.1", 4);
	}
};

/** An address stays what it is; the callback comes at once. */
const literal = (
	address: string,
	_options: unknown,
	callback: (error: Error | null, address: string, family: number) => void,
): void => callback(null, address, 4);

export const nodeHostSockets: HostSockets = {
	connectTcp: (host, port) =>
		connect({ host, port, family: 4, allowHalfOpen: true, noDelay: true, autoSelectFamily: false }),
	connectLocalhost: (port) =>
		connect({
			host: "localhost",
			port,
			lookup: localhost,
			allowHalfOpen: true,
			noDelay: true,
			autoSelectFamily: true,
		}),
	bindUdp() {
		const socket = createSocket({ type: "udp4", lookup: literal });
		socket.bind(0);
		return socket;
	},
	connectLocalUdp(port) {
		const socket = createSocket({ type: "udp4", lookup: literal });
		socket.connect(port, "127.0.0.1");
		return socket;
	},
	ping,
};
