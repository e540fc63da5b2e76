#include "proto/websocket_internal.h"

#include <event2/buffer.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "proto/http_upgrade.h"
#include "proto/messages.h"

#define KEY_SIZE 25        /* base64 of 16 bytes and a NUL */

static void on_refused_upgrade(struct websocket *ws, enum status status, const struct http_answer *answer, const char *why)
{
	char text[sizeof ws->closed.reason];
	ws->closed.http_status = answer->status;
	ws->closed.retry_after = answer->retry_after;
	if (answer->status && answer->status != 101)
		snprintf(text, sizeof text, "%s: HTTP %u %.60s", why, answer->status, answer->reason);
	else
		snprintf(text, sizeof text, "%s", why);
	websocket_end(ws, status, text);
}

void websocket_read_answer(struct websocket *ws)
{
	struct evbuffer *input = bufferevent_get_input(ws->bev);
	size_t available = evbuffer_get_length(input), size = 0;
	struct http_answer answer = { 0 };
	const char *why = "the answer is not HTTP";
	enum status status = STATUS_CHANNEL_HTTP;
	if (available > HTTP_HEAD_MAX)
		available = HTTP_HEAD_MAX;
	const uint8_t *data = available ? evbuffer_pullup(input, (ev_ssize_t)available) : NULL;
	if (!data)
		return;
	switch (http_answer_scan(bytes_of(data, available), &ws->scanned, &size)) {
	case HTTP_SCAN_MORE:
		return;
	case HTTP_SCAN_BAD:
		break;
	case HTTP_SCAN_WHOLE:
		status = http_answer_parse(bytes_of(data, size), &answer, &why);
		if (status == STATUS_OK)
			status = http_upgrade_judge(&answer, ws->accept, WEBSOCKET_SUBPROTOCOL, &why);
	}
	if (status != STATUS_OK) {
		on_refused_upgrade(ws, status, &answer, why);
		return;
	}
	evbuffer_drain(input, size);
	ws->state = OPEN;
	ws->started_at = ws->received_at;
	if (ws->callbacks.open)
		ws->callbacks.open(ws, ws->callbacks.arg);
}

enum status websocket_client_new(struct bufferevent *take_bev, const char *host, const char *path, const struct websocket_options *options,
                                 const struct websocket_callbacks *callbacks, struct websocket **ret_websocket)
{
	uint8_t nonce[16];
	char key[KEY_SIZE];
	enum status status = websocket_new(take_bev, true, false, options, callbacks, ret_websocket);
	if (status != STATUS_OK)
		return status;
	random_bytes(nonce, sizeof nonce);
	EVP_EncodeBlock((unsigned char *)key, nonce, sizeof nonce);
	if (!websocket_accept_key(key, (*ret_websocket)->accept) ||
	    evbuffer_add_printf(bufferevent_get_output(take_bev),
	                        "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
	                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: " WEBSOCKET_SUBPROTOCOL "\r\nUser-Agent: writebackd/" WRITEBACKD_VERSION "\r\n\r\n",
	                        path, host, key) < 0) {
		websocket_free(*ret_websocket);
		*ret_websocket = NULL;
		return STATUS_AGENT_INTERNAL;
	}
	return STATUS_OK;
}

bool websocket_accept_key(const char *key, char out[29])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 section 1.3 */
	uint8_t decoded[18], digest[EVP_MAX_MD_SIZE];
	char joined[24 + sizeof guid], again[KEY_SIZE];
	unsigned size = 0;
	if (strlen(key) != 24 || strcmp(key + 22, "==") != 0 || EVP_DecodeBlock(decoded, (const unsigned char *)key, 24) != 18)
		return false;
	/* Encoded again it must be the same: no stray bits, no white space that OpenSSL forgives. */
	EVP_EncodeBlock((unsigned char *)again, decoded, 16);
	if (strcmp(again, key) != 0)
		return false;
	snprintf(joined, sizeof joined, "%s%s", key, guid);
	if (EVP_Digest(joined, strlen(joined), digest, &size, EVP_sha1(), NULL) != 1)
		return false;
	EVP_EncodeBlock((unsigned char *)out, digest, (int)size);
	return true;
}
