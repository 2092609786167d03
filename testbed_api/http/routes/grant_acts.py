"""Routes: acts on many grants in one change, by number, of an equipment, or of a company."""

from fastapi import APIRouter

from broker.responses.grants import GrantsResponse
from broker.rights import Action
from testbed_api.http import grant_answers, openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import GrantActionsDep
from testbed_api.http.grant_forms import ApprovalForm, RefusalForm, SelectionForm

router = APIRouter(tags=["sharing"])


def _answered(state: str) -> openapi_examples.Responses:
    answer = openapi_examples.answer(GrantsResponse)
    for grant in answer[200]["content"]["application/json"]["example"]["items"]:
        grant["state"] = state
    return answer | openapi_examples.problems(409)


@router.post(
    "/grants/approval",
    openapi_extra=asks(Action.SHARE),
    summary="Grant what is asked for of an equipment or by a company, or less of it",
    responses=_answered("granted"),
)
async def approve_grants(
    form: ApprovalForm,
    grants: GrantActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> GrantsResponse:
    """Allowed to owners and engineers of their owner. All of them in one change, or none.

    Approved are the requests that wait at that moment: a stream that is registered later needs a
    request of its own.
    """
    approved = await grants.approve(context, caller, form.selection(), form.proposal())
    return await grant_answers.many_answers(grants, approved)


@router.post(
    "/grants/refusal",
    openapi_extra=asks(Action.SHARE),
    summary="Refuse what is asked for of an equipment or by a company, with a reason",
    responses=_answered("refused"),
)
async def refuse_grants(
    form: RefusalForm,
    grants: GrantActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> GrantsResponse:
    """Allowed to owners and engineers of their owner. All of them in one change, or none."""
    refused = await grants.refuse(context, caller, form.selection(), form.reason)
    return await grant_answers.many_answers(grants, refused)


@router.post(
    "/grants/revocation",
    openapi_extra=asks(Action.SHARE),
    summary="Revoke grants of an equipment or to a company at once",
    responses=_answered("revoked"),
)
async def revoke_grants(
    form: RefusalForm,
    grants: GrantActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> GrantsResponse:
    """Allowed to owners and engineers of their owner. All of them in one change, or none.

    Connections that use them end at once.
    """
    revoked = await grants.revoke(context, caller, form.selection(), form.reason)
    return await grant_answers.many_answers(grants, revoked)


@router.post(
    "/grants/withdrawal",
    openapi_extra=asks(Action.WITHDRAW),
    summary="Give grants of an equipment back, and take back what you asked for of it",
    responses=_answered("withdrawn"),
)
async def withdraw_grants(
    form: SelectionForm,
    grants: GrantActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> GrantsResponse:
    """Allowed to owners and developers of their company. All of them in one change, or none."""
    withdrawn = await grants.withdraw(context, caller, form.selection())
    return await grant_answers.many_answers(grants, withdrawn)
