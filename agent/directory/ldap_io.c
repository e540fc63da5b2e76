#include "agent/directory/ldap_io.h"

#include <errno.h>
#include <event2/buffer.h>
#include <openldap.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"

static int io_setup(Sockbuf_IO_Desc *desc, void *arg)
{
	desc->sbiod_pvt = arg;
	return 0;
}

static int io_remove(Sockbuf_IO_Desc *desc)
{
	return 0;
}

static size_t input_size(const struct ldap_io *io)
{
	return io->bufferevent != NULL ? evbuffer_get_length(bufferevent_get_input(io->bufferevent)) : 0;
}

static int io_ctrl(Sockbuf_IO_Desc *desc, int option, void *arg)
{
	/* libldap asks this before it polls the descriptor, whose bytes are TLS and long read */
	return option == LBER_SB_OPT_DATA_READY && input_size(desc->sbiod_pvt) > 0 ? 1 : 0;
}

static ber_slen_t io_read(Sockbuf_IO_Desc *desc, void *data, ber_len_t size)
{
	struct ldap_io *io = desc->sbiod_pvt;
	if (input_size(io) == 0) {
		errno = io->bufferevent != NULL ? EAGAIN : ECONNRESET;
		return -1;
	}
	return evbuffer_remove(bufferevent_get_input(io->bufferevent), data, size);
}

static void wipe_and_free(const void *data, size_t size, void *arg)
{
	wipe(arg, size);
	free(arg);
}

/* What is written may hold a password. The evbuffer gets a copy that is wiped when it has been encrypted, and libldap's own copy, which it only frees, is wiped here:
 * it is not read again, as a request is encoded anew only when a referral is followed. */
static ber_slen_t io_write(Sockbuf_IO_Desc *desc, void *data, ber_len_t size)
{
	struct ldap_io *io = desc->sbiod_pvt;
	if (io->bufferevent == NULL) {
		errno = ECONNRESET;
		return -1;
	}
	struct evbuffer *output = bufferevent_get_output(io->bufferevent);
	if (evbuffer_get_length(output) > LDAP_IO_OUTPUT_MAX) {
		errno = EAGAIN;
		return -1;
	}
	uint8_t *copy = malloc(size > 0 ? size : 1);
	if (copy == NULL) {
		errno = ENOMEM;
		return -1;
	}
	memcpy(copy, data, size);
	if (evbuffer_add_reference(output, copy, size, wipe_and_free, copy) != 0) {
		wipe_and_free(copy, size, copy);
		errno = ENOMEM;
		return -1;
	}
	wipe(data, size);
	io->written += size;
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
	ber_len_t incoming = LDAP_IO_INCOMING_MAX;
	if (ldap_init_fd(bufferevent_getfd(io->bufferevent), LDAP_PROTO_EXT, NULL, &ldap) != LDAP_SUCCESS) {
		return STATUS_AGENT_INTERNAL;
	}
	if (ldap_set_option(ldap, LDAP_OPT_PROTOCOL_VERSION, &VERSION) != LDAP_OPT_SUCCESS || ldap_set_option(ldap, LDAP_OPT_REFERRALS, LDAP_OPT_OFF) != LDAP_OPT_SUCCESS ||
	    ldap_get_option(ldap, LDAP_OPT_SOCKBUF, &sockbuf) != LDAP_OPT_SUCCESS || ber_sockbuf_ctrl(sockbuf, LBER_SB_OPT_SET_MAX_INCOMING, &incoming) < 0 ||
	    ber_sockbuf_add_io(sockbuf, &BUFFEREVENT_IO, LBER_SBIOD_LEVEL_PROVIDER, io) != 0) {
		ldap_destroy(ldap);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_ldap = ldap;
	return STATUS_OK;
}
