/* messages: every payload's parser (the first byte chooses); what is parsed must be buildable, and what is built must be parsed and built to the same again. */
#include <stdlib.h>
#include <string.h>

#include "proto/messages.h"

static void must(bool truth)
{
	if (!truth)
		abort();
}

#define TWICE(name, type, parse, build, clear) \
	static void try_##name(struct bytes payload) \
	{ \
		struct type message, again; \
		const char *member = NULL; \
		if (parse(payload, &message, &member) != STATUS_OK) { \
			must(member != NULL); \
			clear(&message); \
			return; \
		} \
		AUTO_FREE char *text = build(&message); \
		must(text && parse(bytes_of_string(text), &again, &member) == STATUS_OK); \
		AUTO_FREE char *same = build(&again); \
		must(same && strcmp(text, same) == 0); \
		clear(&message); \
		clear(&again); \
	}

static char *build_key_set(const struct key_set *set)
{
	return key_set_build(set->issuer, set->iat, set->exp, set->version, NULL, 0);
}

static enum status parse_key_set(struct bytes payload, struct key_set *ret_set, const char **ret_member)
{
	enum status status = key_set_parse(payload, ret_set, ret_member);

	/* keys cannot be taken out of a set again: a set without them is built, and does not parse */
	if (status != STATUS_OK)
		return status;
	AUTO_FREE char *text = build_key_set(ret_set);
	must(text != NULL);
	key_set_clear(ret_set);
	return STATUS_LOCAL_INPUT;
}

TWICE(key_set, key_set, parse_key_set, build_key_set, key_set_clear)
TWICE(challenge, challenge, challenge_parse, challenge_build, challenge_clear)
TWICE(hello, hello, hello_parse, hello_build, hello_clear)
TWICE(welcome, welcome, welcome_parse, welcome_build, welcome_clear)
TWICE(drain, drain, drain_parse, drain_build, drain_clear)
TWICE(ack, ack, ack_parse, ack_build, ack_clear)
TWICE(enroll, enroll, enroll_parse, enroll_build, enroll_clear)
TWICE(request, request_claims, request_parse, request_build, request_claims_clear)
TWICE(rekeyed, rekeyed, rekeyed_parse, rekeyed_build, rekeyed_clear)
TWICE(result, result, result_parse, result_build, result_clear)

/* It is built with a private key only. */
static void try_rekey(struct bytes payload)
{
	struct rekey message;
	const char *member = NULL;
	if (rekey_parse(payload, &message, &member) == STATUS_OK)
		must((message.signing_key || message.decryption_key) && (!message.signing_key || message.proof) && rekey_proven(&message) <= JOSE_INTERNAL);
	else
		must(member != NULL);
	rekey_clear(&message);
}

static void (*const tries[])(struct bytes payload) = { try_key_set, try_challenge, try_hello, try_welcome, try_drain, try_ack, try_enroll, try_request, try_result, try_rekey, try_rekeyed };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const size_t count = sizeof(tries) / sizeof(*tries);

	if (size > 0 && data[0] >= '0' && data[0] < '0' + count)
		tries[data[0] - '0'](bytes_of(data + 1, size - 1));
	return 0;
}
