/* question: what a portal with an API key asks the service for. What is taken is within what the protocol allows, and an agent takes the request that is made of it; what is not is said by a member's name. */
#include <stdlib.h>
#include <string.h>

#include "service/question.h"
#include "service/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WAIT_MS = 8000 };

static void must(bool truth)
{
	if (!truth)
		abort();
}

static void check_password(struct bytes password, bool wanted)
{
	size_t units = password.size > 0 ? utf8_utf16_units(password) : 0;
	must(wanted ? units >= 1 && units <= 256 && memchr(password.data, 0, password.size) == NULL : password.size == 0);
}

static void check(const struct operation_question *question)
{
	unsigned wanted = question->secrets != NULL ? 0 : request_passwords(question->op);
	must(uuid_valid(question->operation_id) && question->op < OP_COUNT && question->wait_ms >= 0 && question->wait_ms <= WAIT_MS);
	check_password(question->new_password, wanted & REQUEST_NEW_PASSWORD);
	check_password(question->old_password, wanted & REQUEST_OLD_PASSWORD);
	must(question->secrets == NULL || (json_is_object(question->secrets) && json_object_size(question->secrets) > 0));
	must(question->directory == NULL || question->directory[0] != 0);
	must((question->actor == ACTOR_ADMINISTRATOR) == (question->actor_id != NULL));
}

static void check_request(const struct operation_question *question)
{
	struct request_claims claims = {
		.issuer = (char *)"https://reset.example", .audience = (char *)"6f9619ff-8b86-4011-b42d-00cf4fc964ff", .request_id = "f81d4fae-7dec-41d0-a765-00a0c91e6bf6", .iat = 1790000000,
		.exp = 1790000060, .op = question->op, .subject = question->subject, .secret = (char *)(request_passwords(question->op) ? "a.b.c.d.e" : NULL), .must_change = question->must_change,
		.unlock = question->unlock, .enforce_policy = question->enforce_policy, .actor = question->actor, .actor_id = (char *)question->actor_id,
	}, again = { 0 };
	const char *member = NULL;
	memcpy(claims.operation_id, question->operation_id, UUID_SIZE);
	AUTO_FREE char *payload = request_build(&claims);
	must(payload != NULL && request_parse(bytes_of_string(payload), &again, &member) == STATUS_OK);
	request_claims_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct operation_question question = { 0 };
	json_t *body = jose_json_parse(bytes_of(data, size));
	if (json_is_object(body)) {
		const char *member = question_read(body, WAIT_MS, &question);
		must(member == NULL || member[0] != 0);
		if (member == NULL) {
			check(&question);
			check_request(&question);
		}
		subject_clear(&question.subject);
	}
	json_decref(body);
	return 0;
}
