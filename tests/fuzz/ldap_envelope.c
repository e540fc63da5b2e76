/* The octets of an LDAP connection: what the envelope lets through is whole, and liblber finds the same in it; what it says of a message holds however much of that is there. */
#include <lber.h>
#include <stdlib.h>

#include "agent/directory/ldap_envelope.h"

enum { MOST = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool truth)
{
	if (!truth)
		abort();
}

static void read_with_liblber(const uint8_t *data, const struct ldap_envelope *envelope)
{
	struct berval octets = { envelope->size, (char *)data };
	BerElement *ber = ber_init(&octets);
	ber_len_t length;
	ber_int_t id;
	must(ber != NULL && ber_scanf(ber, "{i", &id) != LBER_ERROR && id == envelope->message_id);
	must(ber_peek_tag(ber, &length) != LBER_ERROR);
	ber_free(ber, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	while (size > 0) {
		struct ldap_envelope envelope, earlier;
		size_t head = size < LDAP_ENVELOPE_HEAD ? size : LDAP_ENVELOPE_HEAD;
		bool good = ldap_envelope_read(bytes_of(data, head), MOST, &envelope);
		for (size_t i = 0; i < head; i++) {
			bool yet = ldap_envelope_read(bytes_of(data, i), MOST, &earlier);
			must(yet || !good);
			must(earlier.size == 0 || (earlier.size == envelope.size && earlier.message_id == envelope.message_id));
		}
		must(good || envelope.size == 0);
		must(!good || envelope.size > 0 || size < LDAP_ENVELOPE_HEAD); /* nobody waits for more than the head */
		if (envelope.size == 0 || envelope.size > size)
			break;
		read_with_liblber(data, &envelope);
		(void)ldap_envelope_may_be_named(bytes_of(data, envelope.size));
		char words[64];
		ldap_envelope_words(bytes_of(data, envelope.size), words, sizeof words);
		must(utf8_valid(bytes_of_string(words)));
		data += envelope.size;
		size -= envelope.size;
	}
	return 0;
}
