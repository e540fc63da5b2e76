/* packet: what passes on the SOCK_SEQPACKET socket between writebackd (which listens) and writebackd-channel (which connects).
 * A packet is one byte of kind, one byte of endpoint number (0 to 7, as in channel.yaml's list), and the payload:
 *
 *   'F' frame   both ways      one message of the WebSocket, at most 65,536 bytes
 *   'U' up      from channel   the endpoint's WebSocket is open:  {"url","tls","cipher","peer_sha256","peer_not_after","peer_names","peer_issuer","proxy"}
 *   'D' down    from channel   it is gone or could not be had:    {"url","code","close_code","reason","http_status","retry_after","next_try_ms"}
 *   'D' hold    from writebackd no channel is wanted now:           {"code","reason"}; the socket stays, or is closed where another program holds it
 *   'P' ping    both ways      empty; writebackd sends one when it accepts, upon which the channel connects its endpoints, and every 5 s, the channel answers with one; 15 s of silence and the socket is closed by either
 *   'C' close   from writebackd close the endpoint's WebSocket:    {"close_code","reason"}
 *
 * Losing the socket closes every WebSocket (1001). The peer on either side is a stranger's program: unknown kinds, endpoint numbers that are not there and malformed JSON end the connection. */
#ifndef AGENT_CHANNEL_PACKET_H
#define AGENT_CHANNEL_PACKET_H

#include "base/bytes.h"
#include "base/status.h"

#define PACKET_MAX (2 + 65536)
#define PACKET_ENDPOINTS 8

enum packet_kind { PACKET_FRAME = 'F', PACKET_UP = 'U', PACKET_DOWN = 'D', PACKET_PING = 'P', PACKET_CLOSE = 'C' };

struct packet {
	enum packet_kind kind;
	uint8_t endpoint;
	struct bytes payload; /* borrowed from the received bytes */
};

/* STATUS_LOCAL_INPUT: too short, too long, unknown kind, endpoint above 7, a ping with a payload. */
enum status packet_parse(struct bytes bytes, struct packet *ret_packet) MUST_USE;

/* The payloads, but for a frame's, which is no JSON. A text is cut to its room and mended (utf8_mend); one that is missing or no text is "", a number that is missing, none or out of range is 0:
 * an older peer says less. STATUS_LOCAL_INPUT: no JSON object, and what is told of each. */
struct packet_up {
	char url[256], tls[32], cipher[84], peer_names[204], peer_issuer[156];
	int64_t peer_not_after; /* seconds since 1970, no later than the year 9999 */
};
struct packet_down {
	char url[256], code[64], reason[184];
	unsigned close_code; /* at most 4999 */
};
/* 'D' from writebackd: one with no reason is refused. */
struct packet_hold {
	char reason[200];
};
/* One with a code that may not be sent (RFC 6455, section 7.4) is refused. */
struct packet_close {
	unsigned close_code;
	char reason[124]; /* a close frame has room for 123 octets */
};
enum status packet_parse_up(struct bytes payload, struct packet_up *ret_up) MUST_USE;
enum status packet_parse_down(struct bytes payload, struct packet_down *ret_down) MUST_USE;
enum status packet_parse_hold(struct bytes payload, struct packet_hold *ret_hold) MUST_USE;
enum status packet_parse_close(struct bytes payload, struct packet_close *ret_close) MUST_USE;

/* A connected socket on a loop: whole packets in, whole packets out, a bounded queue of what the peer has not taken yet. */
#include <event2/event.h>
struct packet_socket;
struct packet_socket_callbacks {
	void (*packet)(struct packet_socket *socket, const struct packet *packet, void *arg);
	/* Peer gone, malformed packet or queue full; exactly once; the owner frees it. */
	void (*closed)(struct packet_socket *socket, enum status status, const char *why, void *arg);
	void *arg;
};
/* Takes the descriptor. Sets it non-blocking and its buffers to 4 MiB where the system allows. */
enum status packet_socket_new(struct event_base *base, int take_fd, const struct packet_socket_callbacks *callbacks, struct packet_socket **ret_socket) MUST_USE;
/* STATUS_AGENT_OVERLOADED where 1,024 packets (or 16 MiB) wait. */
enum status packet_socket_send(struct packet_socket *socket, enum packet_kind kind, uint8_t endpoint, struct bytes payload) MUST_USE;
/* `behind` is called with true where 256 packets (or 4 MiB) wait, with false once none waits any more: whoever makes packets of what he reads should read nothing meanwhile. */
void packet_socket_on_behind(struct packet_socket *socket, void (*behind)(bool is_behind, void *arg));
void packet_socket_free(struct packet_socket *socket);

#endif
