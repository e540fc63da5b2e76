#include "agent/directory/ldap_io.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <openldap.h>
#include <stdlib.h>
#include <string.h>

#include "agent/directory/ldap_envelope.h"
#include "base/secret.h"

enum { TURN_CAPACITY = 4096 };
/* libevent takes another chain, of 1 KiB at least, wherever the last one has not the room for as much as it may read: of records of one octet each, a thousand times what they hold, for as long as their message is not whole. */
enum { READ_MOST = 256 };

static int io_setup(Sockbuf_IO_Desc *desc, void *arg)
{
	desc->sbiod_pvt = arg;
	return 0;
}

static int io_remove(Sockbuf_IO_Desc *desc)
{
	return 0;
}

static int io_ctrl(Sockbuf_IO_Desc *desc, int option, void *arg)
{
	const struct ldap_io *io = desc->sbiod_pvt;
	/* libldap asks this before it polls the descriptor, whose bytes are TLS and long read */
	return option == LBER_SB_OPT_DATA_READY && io->readable > 0 ? 1 : 0;
}

static ber_slen_t io_read(Sockbuf_IO_Desc *desc, void *data, ber_len_t size)
{
	struct ldap_io *io = desc->sbiod_pvt;
	if (io->bufferevent == NULL || io->readable == 0) {
		errno = io->bufferevent != NULL ? EAGAIN : ECONNRESET;
		return -1;
	}
	int got = evbuffer_remove(bufferevent_get_input(io->bufferevent), data, size < io->readable ? size : io->readable);
	io->readable -= got > 0 ? (size_t)got : 0;
	return got;
}

size_t ldap_io_unsent(const struct ldap_io *io)
{
	return io->turn_size + (io->bufferevent != NULL ? evbuffer_get_length(bufferevent_get_output(io->bufferevent)) : 0);
}

static void wipe_and_free(const void *data, size_t size, void *arg)
{
	wipe(arg, size);
	free(arg);
}

static void drop_turn(struct ldap_io *io)
{
	if (io->turn != NULL) {
		wipe_and_free(io->turn, io->turn_size, io->turn);
	}
	io->turn = NULL;
	io->turn_size = io->turn_capacity = 0;
}

/* The evbuffer wipes it when it has been encrypted. Where memory is out, libldap's answers never come, and the deadlines see to that. */
static void flush_turn(evutil_socket_t fd, short what, void *arg)
{
	struct ldap_io *io = arg;
	if (io->turn == NULL) {
		return;
	}
	if (io->bufferevent == NULL || evbuffer_add_reference(bufferevent_get_output(io->bufferevent), io->turn, io->turn_size, wipe_and_free, io->turn) != 0) {
		drop_turn(io);
		return;
	}
	io->turn = NULL;
	io->turn_size = io->turn_capacity = 0;
}

static bool make_room(struct ldap_io *io, size_t size)
{
	if (io->turn_size + size <= io->turn_capacity) {
		return true;
	}
	size_t capacity = io->turn_size + size < TURN_CAPACITY ? TURN_CAPACITY : 2 * (io->turn_size + size);
	uint8_t *grown = malloc(capacity);
	if (grown == NULL) {
		return false;
	}
	if (io->turn != NULL) {
		memcpy(grown, io->turn, io->turn_size);
		wipe_and_free(io->turn, io->turn_size, io->turn);
	}
	io->turn = grown;
	io->turn_capacity = capacity;
	return true;
}

/* What is written may hold a password. libldap's own copy, which it only frees, is wiped here: it is not read again, as a request is encoded anew only when a
 * referral is followed. */
static ber_slen_t io_write(Sockbuf_IO_Desc *desc, void *data, ber_len_t size)
{
	struct ldap_io *io = desc->sbiod_pvt;
	if (io->bufferevent == NULL) {
		errno = ECONNRESET;
		return -1;
	}
	if (ldap_io_unsent(io) > LDAP_IO_OUTPUT_MAX) {
		errno = EAGAIN;
		return -1;
	}
	if (!make_room(io, size)) {
		errno = ENOMEM;
		return -1;
	}
	memcpy(io->turn + io->turn_size, data, size);
	io->turn_size += size;
	io->written += size;
	wipe(data, size);
	event_active(io->flush, EV_TIMEOUT, 0);
	return size;
}

static int io_close(Sockbuf_IO_Desc *desc)
{
	return 0; /* the descriptor is the bufferevent's */
}

static Sockbuf_IO BUFFEREVENT_IO = { io_setup, io_remove, io_ctrl, io_read, io_write, io_close }; /* liblber wants it writable, and never writes */

enum status ldap_io_open(struct ldap_io *io, LDAP **ret_ldap)
{
	static const int VERSION = LDAP_VERSION3;
	LDAP *ldap = NULL;
	Sockbuf *sockbuf = NULL;
	io->flush = event_new(bufferevent_get_base(io->bufferevent), -1, 0, flush_turn, io);
	if (io->flush == NULL || bufferevent_set_max_single_read(io->bufferevent, READ_MOST) != 0) {
		return STATUS_AGENT_INTERNAL;
	}
	if (ldap_init_fd(bufferevent_getfd(io->bufferevent), LDAP_PROTO_EXT, NULL, &ldap) != LDAP_SUCCESS) {
		return STATUS_AGENT_INTERNAL;
	}
	if (ldap_set_option(ldap, LDAP_OPT_PROTOCOL_VERSION, &VERSION) != LDAP_OPT_SUCCESS || ldap_set_option(ldap, LDAP_OPT_REFERRALS, LDAP_OPT_OFF) != LDAP_OPT_SUCCESS ||
	    ldap_get_option(ldap, LDAP_OPT_SOCKBUF, &sockbuf) != LDAP_OPT_SUCCESS || ber_sockbuf_add_io(sockbuf, &BUFFEREVENT_IO, LBER_SBIOD_LEVEL_PROVIDER, io) != 0) {
		ldap_destroy(ldap);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_ldap = ldap;
	return STATUS_OK;
}

/* The size of the next message that is there in whole; 0: none is. */
static enum status next_message(struct evbuffer *input, struct ldap_envelope *ret_envelope)
{
	uint8_t head[LDAP_ENVELOPE_HEAD];
	ssize_t size = evbuffer_copyout(input, head, sizeof head);
	if (!ldap_envelope_read(bytes_of(head, size > 0 ? (size_t)size : 0), LDAP_IO_INCOMING_MAX, ret_envelope)) {
		return STATUS_DIRECTORY_PROTOCOL;
	}
	if (ret_envelope->size > evbuffer_get_length(input)) {
		ret_envelope->size = 0;
	}
	return STATUS_OK;
}

static struct bytes in_one_piece(struct evbuffer *input, const struct ldap_envelope *envelope)
{
	const uint8_t *message = evbuffer_pullup(input, (ev_ssize_t)envelope->size);
	return bytes_of(message, message != NULL ? envelope->size : 0);
}

enum status ldap_io_receive(struct ldap_io *io, LDAP *ldap, LDAPMessage **ret_message, size_t *ret_size)
{
	struct evbuffer *input = bufferevent_get_input(io->bufferevent);
	struct ldap_envelope next;
	*ret_message = NULL;
	while (*ret_message == NULL) {
		struct timeval now = { 0, 0 };
		enum status status = next_message(input, &next);
		if (status != STATUS_OK || next.size == 0) {
			return status;
		}
		if (next.message_id == 0) {
			ldap_envelope_words(in_one_piece(input, &next), io->notice, sizeof io->notice);
			evbuffer_drain(input, next.size);
			continue;
		}
		if (next.operation == LDAP_RES_EXTENDED && !ldap_envelope_may_be_named(in_one_piece(input, &next))) {
			return STATUS_DIRECTORY_PROTOCOL;
		}
		io->readable = *ret_size = next.size;
		if (ldap_result(ldap, LDAP_RES_ANY, LDAP_MSG_ONE, &now, ret_message) < 0 || io->readable > 0) {
			ldap_msgfree(*ret_message);
			*ret_message = NULL;
			return STATUS_DIRECTORY_PROTOCOL;
		}
	}
	return STATUS_OK;
}

void ldap_io_close(struct ldap_io *io)
{
	drop_turn(io);
	if (io->flush != NULL) {
		event_free(io->flush);
	}
	io->flush = NULL;
	io->bufferevent = NULL;
}
