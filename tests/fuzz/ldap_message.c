/* ldap_message: mock-directory's reader of LDAP messages, and what it does with filters, names and passwords out of them. */
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/mock-directory/filter.h"
#include "tests/support/mock-directory/password.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct forest *forest;
static struct object *user;

static void build_forest(void)
{
	setlocale(LC_CTYPE, "C.UTF-8");
	forest = must_alloc(sizeof *forest);
	forest->dns_name = must_strdup("corp.example.test");
	forest->netbios = must_strdup("CORP");
	forest->host = must_strdup("dc1.corp.example.test");
	forest->server_name = must_strdup("DC1");
	forest_build(forest, "S-1-5-21-1-2-3");
	user = forest_add(forest, forest->domain, "CN", "Zoë, M\\üller", CLASS_USER);
	struct account *account = forest_add_account(forest, user, "zoe");
	account->upn = must_strdup("zoe@corp.example.test");
	account->display_name = must_strdup("Zoë Müller");
	forest_set_rid(forest, user, 1200);
	object_join(user, forest_group(forest, "Domain Admins"));
}

static void use(struct arena *arena, const struct request *request)
{
	struct view view = { .forest = forest, .who = user, .arena = arena, .now = forest_now(forest) };
	struct value password;
	size_t units;
	bool bad;
	forest_resolve(forest, arena, request->name, &bad);
	forest_by_logon(forest, arena, request->name);
	for (size_t i = 0; request->filter && i < forest->count; i += 7)
		filter_match(request->filter, &view, forest->objects[i]);
	if (request->filter)
		filter_match(request->filter, &view, user);
	for (size_t i = 0; i < request->modification_count; i++)
		for (size_t j = 0; j < request->modifications[i].values.count; j++)
			if (password_unquote(arena, request->modifications[i].values.items[j], &password, &units) == UNQUOTE_OK)
				password_acceptable(forest, arena, forest->domain->policy, user->account, password, units);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena arena = { 0 };
	struct request request;
	if (!forest)
		build_forest();
	long whole = message_size(data, size);
	if (whole > (long)size)
		abort();
	if (whole > 0 && message_decode(&arena, data, (size_t)whole, &request))
		use(&arena, &request);
	arena_free(&arena);
	return 0;
}
