/* message: LDAP messages (RFC 4511) from and to octets, by liblber over memory. Requests borrow the arena's copy of the PDU. */
#ifndef MOCK_DIRECTORY_MESSAGE_H
#define MOCK_DIRECTORY_MESSAGE_H

#include <event2/buffer.h>
#include <lber.h>
#include <ldap.h>

#include "values.h"

#define MESSAGE_MAX (1024 * 1024)
#define FILTER_DEPTH_MAX 32

struct attribute_row;
struct filter {
	ber_tag_t kind;                    /* LDAP_FILTER_… */
	struct value attribute;
	const struct attribute_row *row;   /* known attribute, or NULL */
	struct value value;                /* assertion; in an extensible match too */
	struct value rule;                 /* extensible match: the rule's OID */
	struct value initial, final, *any; /* substrings; data NULL: absent */
	size_t any_count;
	struct filter *children, *next;
};

struct control {
	struct value oid, value;
	bool critical, has_value;
};

struct modification {
	int operation; /* LDAP_MOD_ADD, _DELETE, _REPLACE */
	struct value attribute;
	struct values values;
};

struct request {
	int id;
	ber_tag_t operation;       /* LDAP_REQ_… */
	struct value name;         /* bind name, search base, modify's object, extended operation's OID */
	int version;
	ber_tag_t method;          /* LDAP_AUTH_SIMPLE or _SASL */
	struct value password;
	int scope, size_limit;
	int abandoned;             /* message id */
	bool types_only;
	struct filter *filter;
	struct values attributes;
	struct modification *modifications;
	size_t modification_count;
	struct control *controls;
	size_t control_count;
};

/* Frames: how much of the input is one PDU. 0: not yet complete; -1: not an LDAP message, or above MESSAGE_MAX. */
long message_size(const uint8_t *data, size_t available);
/* False: malformed; then the connection ends with a notice of disconnection. `pdu` is copied. */
bool message_decode(struct arena *arena, const uint8_t *pdu, size_t size, struct request *ret_request);

/* Reads values in place. End with ber_free(ber, 0). */
BerElement *message_reader(const char *data, size_t size);

struct answer {
	int code;
	const char *matched;   /* NULL: "" */
	char text[1024];       /* with Windows' final NUL, which is part of it */
	size_t text_size;
	const char *referral;  /* URL, or NULL */
};
/* Adds the final NUL that Windows sends. */
void answer_set(struct answer *answer, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The tag that answers a request; 0 for those that have no answer. */
ber_tag_t message_response_tag(ber_tag_t request);
/* `paged`: a paged-results control with this cookie, or NULL. */
void message_put_result(struct evbuffer *out, int id, ber_tag_t tag, const struct answer *answer, const struct value *paged);
void message_put_extended(struct evbuffer *out, int id, const struct answer *answer, const char *name, const struct value *value);
void message_put_reference(struct evbuffer *out, int id, const char *url);

struct entry_attribute {
	struct value name;
	struct values values;
};
void message_put_entry(struct evbuffer *out, int id, const char *dn, const struct entry_attribute *attributes, size_t count, bool types_only);

#endif
