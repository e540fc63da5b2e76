/* Answers that several operations give, in Windows' words. */
#include <string.h>

#include "server.h"

void answer_unbound(struct answer *answer)
{
	answer_set(answer, LDAP_OPERATIONS_ERROR, "000004DC: LdapErr: DSID-0C090A5C, comment: In order to perform this operation a successful bind must be completed "
		"on the connection., data 0, v4563");
}

static void answer_elsewhere(struct operation *operation, struct value name, const char *folded, struct answer *answer)
{
	struct arena *arena = &operation->server->arena;
	char *host = arena_printf(arena, "%s", "");
	for (const char *at = strstr(folded, "dc="); at && *at; at = name_parent(at))
		if (!strncmp(at, "dc=", 3))
			host = arena_printf(arena, "%s%s%.*s", host, *host ? "." : "", (int)strcspn(at + 3, ","), at + 3);
	answer->referral = arena_printf(arena, "ldap://%s/%.*s", host, (int)name.size, name.data);
	answer_set(answer, LDAP_REFERRAL, "0000202B: RefErr: DSID-03100835, data 0, 1 access points\n\tref 1: '%.200s'\n", host);
}

void answer_no_object(struct operation *operation, struct value name, bool bad, struct answer *answer)
{
	struct forest *forest = operation->server->forest;
	char *folded = bad || (name.size && name.data[0] == '<') ? NULL : name_fold(&operation->server->arena, name);
	if (bad) {
		answer_set(answer, LDAP_INVALID_DN_SYNTAX, "0000208F: NameErr: DSID-03100231, problem 2006 (BAD_NAME), data 8350, best match of:\n\t'%.*s'\n",
			name.size > 200 ? 200 : (int)name.size, name.data);
		return;
	}
	const struct object *nearest = NULL;
	for (const char *at = folded; at && *at && !nearest; at = name_parent(at))
		nearest = forest_by_folded(forest, at);
	if (folded && !nearest && strstr(folded, "dc=")) {
		answer_elsewhere(operation, name, folded, answer);
		return;
	}
	answer->matched = nearest ? nearest->dn : "";
	answer_set(answer, LDAP_NO_SUCH_OBJECT, "0000208D: NameErr: DSID-0310028B, problem 2001 (NO_OBJECT), data 0, best match of:\n\t'%.300s'\n", answer->matched);
}

void operation_answer(struct operation *operation, const struct answer *answer)
{
	operation->result = answer->code;
	message_put_result(operation->out, operation->request->id, message_response_tag(operation->request->operation), answer, NULL);
}

void extended_perform(struct operation *operation)
{
	struct server *server = operation->server;
	const struct request *request = operation->request;
	struct answer answer = { 0 };
	bool hints;
	if (!controls_check(operation, &answer, &hints)) {
		operation_answer(operation, &answer);
	} else if (value_is(request->name, LDAP_EXOP_WHO_AM_I)) {
		const struct object *who = *operation->bound;
		struct value identity = value_of(who ? arena_printf(&server->arena, "u:%s\\%s", server->forest->netbios, who->account->sam) : "");
		message_put_extended(operation->out, request->id, &answer, NULL, &identity);
	} else {
		if (value_is(request->name, LDAP_EXOP_START_TLS))
			answer_set(&answer, operation->encrypted ? LDAP_OPERATIONS_ERROR : LDAP_UNAVAILABLE, "00000000: LdapErr: DSID-0C091158, comment: Error initializing SSL/TLS, data 0, v4563");
		else
			answer_set(&answer, LDAP_PROTOCOL_ERROR, "0000203D: LdapErr: DSID-0C0911C1, comment: Unknown extended request OID, data 0, v4563");
		operation_answer(operation, &answer);
	}
	operation->result = answer.code;
}
