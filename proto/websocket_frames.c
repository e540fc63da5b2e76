#include "proto/websocket_internal.h"

#include <event2/buffer.h>
#include <string.h>

#define WINDOW_US 1000000  /* control frames are counted by the second */

static ssize_t on_wslay_recv(wslay_event_context_ptr wslay, uint8_t *out, size_t capacity, int flags, void *arg)
{
	struct websocket *ws = arg;
	int got = evbuffer_remove(bufferevent_get_input(ws->bev), out, capacity);
	if (got <= 0) {
		wslay_event_set_error(wslay, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	ws->bytes_in += (size_t)got;
	return got;
}

static ssize_t on_wslay_send(wslay_event_context_ptr wslay, const uint8_t *data, size_t size, int flags, void *arg)
{
	struct websocket *ws = arg;
	if (evbuffer_add(bufferevent_get_output(ws->bev), data, size) < 0) {
		wslay_event_set_error(wslay, WSLAY_ERR_CALLBACK_FAILURE);
		return -1;
	}
	return (ssize_t)size;
}

static int on_wslay_mask(wslay_event_context_ptr wslay, uint8_t *out, size_t size, void *arg)
{
	random_bytes(out, size);
	return 0;
}

void websocket_fail_later(struct websocket *ws, unsigned code, const char *why)
{
	if (!ws->fail_code) {
		ws->fail_code = code;
		ws->fail_why = why;
	}
	wslay_event_shutdown_read(ws->wslay);
}

static void count_control_frame(struct websocket *ws)
{
	if (ws->received_at - ws->window_at >= WINDOW_US) {
		ws->window_at = ws->received_at;
		ws->window_count = 0;
	}
	if (++ws->window_count > ws->options.max_control_rate)
		websocket_fail_later(ws, 1008, "too many control frames");
}

static uint64_t frame_size(const struct websocket *ws, uint64_t payload)
{
	return 2 + (payload < 126 ? 0 : payload < 65536 ? 2 : 8) + (ws->server ? 4 : 0) + payload;
}

static void on_frame_start(wslay_event_context_ptr wslay, const struct wslay_event_on_frame_recv_start_arg *frame, void *arg)
{
	struct websocket *ws = arg;
	ws->frame_opcode = frame->opcode;
	ws->frame_size = frame_size(ws, frame->payload_length);
	switch (frame->opcode) {
	case WSLAY_PING:
	case WSLAY_PONG:
		count_control_frame(ws);
		return;
	case WSLAY_CONNECTION_CLOSE:
		ws->close_size = 0;
		/* RFC 6455 section 5.5.1: a body begins with two bytes of code. */
		if (frame->payload_length == 1)
			websocket_fail_later(ws, 1002, "a close frame with half a code");
		return;
	case WSLAY_BINARY_FRAME:
		websocket_fail_later(ws, 1003, "a binary message");
		return;
	default:
		ws->fragments = frame->opcode == WSLAY_CONTINUATION_FRAME ? ws->fragments + 1 : 1;
		ws->message_open = !frame->fin;
		if (ws->fragments > ws->options.max_fragments)
			websocket_fail_later(ws, 1008, "a message of too many fragments");
	}
}

static void on_frame_chunk(wslay_event_context_ptr wslay, const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *arg)
{
	struct websocket *ws = arg;
	if (ws->frame_opcode != WSLAY_CONNECTION_CLOSE || chunk->data_length > sizeof ws->close_payload - ws->close_size)
		return;
	if (chunk->data_length)
		memcpy(ws->close_payload + ws->close_size, chunk->data, chunk->data_length);
	ws->close_size += chunk->data_length;
}

unsigned websocket_close_code(const struct websocket *ws)
{
	return ws->close_size < 2 ? 1005 : ws->close_payload[0] * 256u + ws->close_payload[1];
}

/* RFC 6455 section 7.4 and the registry behind it: 1004 to 1006 and 1015 never travel. */
static bool close_code_valid(unsigned code)
{
	return (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) || (code >= 3000 && code <= 4999);
}

static void on_frame_end(wslay_event_context_ptr wslay, void *arg)
{
	struct websocket *ws = arg;
	ws->bytes_of_frames += ws->frame_size;
	if (ws->frame_opcode != WSLAY_CONNECTION_CLOSE || ws->fail_code)
		return;
	if (ws->close_size >= 2 && !close_code_valid(websocket_close_code(ws)))
		websocket_fail_later(ws, 1002, "a close frame with a code that may not be sent");
	else if (ws->close_size > 2 && !utf8_valid(bytes_of(ws->close_payload + 2, ws->close_size - 2)))
		websocket_fail_later(ws, 1007, "a close reason that is not UTF-8");
	else
		ws->close_seen = true;
	/* wslay 1.1.1 knows no code above 1011 and would answer 1012 (restart) and 1013 (try later) with 1002; the first close frame queued stands. */
	if (ws->close_seen && ws->close_size >= 2)
		wslay_event_queue_close(wslay, (uint16_t)websocket_close_code(ws), NULL, 0);
}

static void on_pong(struct websocket *ws, struct bytes payload)
{
	if (!ws->ping_waits || !bytes_equal(payload, bytes_of(ws->ping_payload, sizeof ws->ping_payload)))
		return;
	ws->ping_waits = false;
	ws->round_trip_us = ws->received_at - ws->pinged_at;
}

static void on_wslay_message(wslay_event_context_ptr wslay, const struct wslay_event_on_msg_recv_arg *message, void *arg)
{
	struct websocket *ws = arg;
	struct bytes payload = bytes_of(message->msg, message->msg_length);
	if (message->opcode == WSLAY_TEXT_FRAME) {
		ws->message_at = 0;
		ws->message_open = false;
	}
	if (ws->fail_code || ws->state == ENDED)
		return;
	if (message->opcode == WSLAY_TEXT_FRAME)
		ws->callbacks.message(ws, payload, ws->callbacks.arg);
	else if (message->opcode == WSLAY_PONG)
		on_pong(ws, payload);
}

bool websocket_frames_new(struct websocket *ws)
{
	static const struct wslay_event_callbacks callbacks = {
		.recv_callback = on_wslay_recv,
		.send_callback = on_wslay_send,
		.genmask_callback = on_wslay_mask,
		.on_frame_recv_start_callback = on_frame_start,
		.on_frame_recv_chunk_callback = on_frame_chunk,
		.on_frame_recv_end_callback = on_frame_end,
		.on_msg_recv_callback = on_wslay_message,
	};
	if (ws->wslay)
		wslay_event_context_free(ws->wslay);
	ws->wslay = NULL;
	if ((ws->server ? wslay_event_context_server_init : wslay_event_context_client_init)(&ws->wslay, &callbacks, ws) != 0)
		return false;
	wslay_event_config_set_max_recv_msg_length(ws->wslay, ws->options.max_message_bytes);
	return true;
}
