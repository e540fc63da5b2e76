#include "agent/directory/flavor.h"

#include <stdlib.h>

void ldap_search_clear(struct ldap_search *search)
{
	free(search->base);
	free(search->filter);
	*search = (struct ldap_search){ 0 };
}

void root_facts_clear(struct root_facts *facts)
{
	free(facts->naming_context);
	free(facts->host_name);
	free(facts->service_name);
	*facts = (struct root_facts){ 0 };
}

void token_clear(struct token *token)
{
	free(token->sids);
	*token = (struct token){ 0 };
}

void user_facts_clear(struct user_facts *facts)
{
	account_clear(&facts->account);
	free(facts->policy_dn);
	*facts = (struct user_facts){ 0 };
}
