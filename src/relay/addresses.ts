/** The addresses that every machine sees (those of QEMU's user network). Ipv4: 32 bits, host order. Mac: 48 bits. */

export type Ipv4 = number;
export type Mac = number;

/** 10.0.2.0/24. */
export const NETWORK_ADDRESS: Ipv4 = 0x0a000200;
export const NETWORK_MASK: Ipv4 = 0xffffff00;
export const NETWORK_BROADCAST: Ipv4 = 0x0a0002ff;
/** 10.0.2.2: the router, and the alias of the host's localhost for the ports that the user opened. */
export const GATEWAY_ADDRESS: Ipv4 = 0x0a000202;
/** 10.0.2.3 */
export const DNS_ADDRESS: Ipv4 = 0x0a000203;
/** 10.0.2.15: the machine; the first one where several share a network. */
export const GUEST_ADDRESS: Ipv4 = 0x0a00020f;
/** 52:54:00:12:35:02, constant, so that a restored machine goes on with what its neighbour table says. */
export const GATEWAY_MAC: Mac = 0x525400123502;
export const BROADCAST_MAC: Mac = 0xffffffffffff;

/** Broadcast and multicast: the lowest bit of the first byte (IEEE 802 8.2). */
export function isGroupMac(mac: Mac): boolean {
	return (Math.floor(mac / 2 ** 40) & 1) === 1;
}

/** Whether a machine may send as this one. */
export function isMachineMac(mac: Mac): boolean {
	return !isGroupMac(mac) && mac !== 0 && mac !== GATEWAY_MAC;
}
