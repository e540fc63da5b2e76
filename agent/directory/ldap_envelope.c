#include "agent/directory/ldap_envelope.h"

#include <ldap.h>
#include <stdio.h>

enum { SEQUENCE = 0x30, INTEGER = 0x02, CLASS_AND_FORM = 0xe0, APPLICATION_CONSTRUCTED = 0x60, LONG_TAG = 0x1f };

struct element {
	uint8_t tag;
	size_t head, length;     /* of tag and length; of the contents */
};

/* False: no such element. head 0: it is longer than what is there. */
static bool read_element(struct bytes in, struct element *ret_element)
{
	*ret_element = (struct element){ .tag = in.size > 0 ? in.data[0] : 0 };
	if (in.size < 2) {
		return true;
	}
	size_t octets = in.data[1] & 0x7f;
	if (in.data[1] < 0x80) {
		*ret_element = (struct element){ in.data[0], 2, in.data[1] };
		return true;
	}
	if (octets == 0 || octets > 4) { /* of no definite length, or of one that nobody means */
		return false;
	}
	if (in.size < 2 + octets) {
		return true;
	}
	ret_element->head = 2 + octets;
	for (size_t i = 0; i < octets; i++) {
		ret_element->length = ret_element->length << 8 | in.data[2 + i];
	}
	return true;
}

static bool is_operation(uint8_t tag)
{
	return (tag & CLASS_AND_FORM) == APPLICATION_CONSTRUCTED && (tag & LONG_TAG) != LONG_TAG;
}

/* As read_element, of an element that lies within the `left` octets that are still to come, of which `in` has the first. */
static bool read_inner(struct bytes in, size_t left, struct element *ret_element)
{
	if (!read_element(bytes_of(in.data, in.size < left ? in.size : left), ret_element)) {
		return false;
	}
	return ret_element->head == 0 ? in.size < left : ret_element->length <= left - ret_element->head;
}

bool ldap_envelope_read(struct bytes head, size_t most, struct ldap_envelope *ret_envelope)
{
	struct element message, id, operation;
	*ret_envelope = (struct ldap_envelope){ 0 };
	if (head.size > 0 && head.data[0] != SEQUENCE) {
		return false;
	}
	if (!read_element(head, &message) || message.length > most) {
		return false;
	}
	if (message.head == 0) {
		return true;
	}
	struct bytes in = bytes_of(head.data + message.head, head.size - message.head);
	if (!read_inner(in, message.length, &id) || (in.size > 0 && id.tag != INTEGER)) {
		return false;
	}
	if (id.head == 0) {
		return true;
	}
	size_t behind = id.head + id.length;
	if (id.length < 1 || id.length > 4 || (in.size > id.head && (in.data[id.head] & 0x80) != 0)) {
		return false;
	}
	if (in.size < behind) {
		return true;
	}
	int32_t message_id = 0;
	for (size_t i = id.head; i < behind; i++) {
		message_id = message_id << 8 | in.data[i];
	}
	in = bytes_of(in.data + behind, in.size - behind);
	if (!read_inner(in, message.length - behind, &operation) || (in.size > 0 && !is_operation(operation.tag))) {
		return false;
	}
	if (operation.head > 0) {
		*ret_envelope = (struct ldap_envelope){ message.head + message.length, message_id, operation.tag };
	}
	return true;
}

/* NULL where memory was or is out. */
static BerElement *open_message(struct bytes message)
{
	struct berval octets = { message.size, (char *)message.data };
	return message.data != NULL ? ber_init(&octets) : NULL;
}

/* As libldap's own reader goes: by the same calls, and past the operation's end where that is too short. */
bool ldap_envelope_may_be_named(struct bytes message)
{
	BerElement *ber = open_message(message);
	struct berval name;
	ber_len_t length;
	bool may = ber != NULL;
	if (may && ber_scanf(ber, "{x{xxx") != LBER_ERROR) {
		if (ber_peek_tag(ber, &length) == LDAP_TAG_REFERRAL) {
			ber_scanf(ber, "x");
		}
		if (ber_peek_tag(ber, &length) == LDAP_TAG_EXOP_RES_OID) {
			may = ber_scanf(ber, "m", &name) == LBER_ERROR || (name.bv_len > 0 && name.bv_val[0] != '\0');
		}
	}
	ber_free(ber, 1);
	return may;
}

void ldap_envelope_words(struct bytes message, char *ret_words, size_t size)
{
	BerElement *ber = open_message(message);
	struct berval text;
	ber_int_t code;
	ret_words[0] = '\0';
	if (ber != NULL && ber_scanf(ber, "{x{exm", &code, &text) != LBER_ERROR) {
		snprintf(ret_words, size, "%d %.*s", code, (int)(text.bv_len < size ? text.bv_len : size), text.bv_val);
		utf8_mend(ret_words);
	}
	ber_free(ber, 1);
}
